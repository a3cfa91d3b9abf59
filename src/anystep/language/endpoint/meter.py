"""How many tokens will a prompt cost? Exactly where the server has said so before, else as its own reports suggest."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

KEPT = 4096  # prompts whose tokens are remembered
FIRST = 0.35  # tokens a byte before the first report: rather too many than too few, and corrected by that report
PART = 512  # tokens of a part that is no text, such as an image, before the server has said


class Meter:
    """Learns from every report of usage; safe in several threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, int] = OrderedDict()
        self._bytes = self._tokens = 0
        self._lock = threading.Lock()

    def estimate(self, prompt: Any, begun: str = "", generated: int = 0) -> int:
        """Tokens of a prompt, followed by a reply's beginning that took `generated` tokens to make."""
        with self._lock:
            known = self._known.get(_digest(prompt, begun))
            if known is not None:
                return known
            bare = self._known.get(_digest(prompt, ""))
            if bare is not None and begun:
                return bare + generated
            rate = self._tokens / self._bytes if self._bytes else FIRST
            size, parts = weight(prompt)
            return max(1, math.ceil(size * rate) + parts * PART + (generated if begun else 0))

    def learn(self, prompt: Any, begun: str, tokens: int) -> None:
        """A prompt's tokens, as the server reported them."""
        size, parts = weight(prompt)
        with self._lock:
            self._known[_digest(prompt, begun)] = tokens
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
            if not parts:
                self._bytes += size + len(begun.encode("utf-8", "replace"))
                self._tokens += tokens


def weight(prompt: Any) -> tuple[int, int]:
    """Bytes of text in a prompt, and how many of its parts are no text."""
    if isinstance(prompt, str):
        return len(prompt.encode("utf-8", "replace")), 0
    size = parts = 0
    for message in prompt:
        content = message.get("content")
        for part in content if isinstance(content, (list, tuple)) else [content]:
            text = part.get("text") if isinstance(part, Mapping) else part
            if isinstance(text, str):
                size += len(text.encode("utf-8", "replace"))
            elif part is not None:
                parts += 1
    return size, parts


def _digest(prompt: Any, begun: str) -> bytes:
    text = json.dumps([prompt, begun], sort_keys=True, default=list)
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
