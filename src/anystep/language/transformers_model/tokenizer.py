"""A tokenizer of transformers as the engine's: fast or slow, with its chat template and what it puts before a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anystep.errors import Unsupported, UsageError
from anystep.language.engine.tokenizer import Stream, Subwords


class Adopted:
    """`tokenizer` of transformers with the face of `engine.tokenizer.Tokenizer`; `ends` are tokens that end answers."""

    def __init__(self, tokenizer: Any, ends: frozenset[int]) -> None:
        self.tokenizer = tokenizer
        end = tokenizer.eos_token_id
        self.ends = ends or frozenset(() if end is None else (int(end),))
        self.template: str | None = getattr(tokenizer, "chat_template", None)
        bare, whole = self.encode("a"), list(tokenizer.encode("a"))
        starts = (at for at in range(len(whole)) if whole[at : at + len(bare)] == bare)
        self.begin = tuple(whole[: next(starts, 0)])

    @property
    def size(self) -> int:
        return len(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, tokens: Sequence[int]) -> str:
        text = self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def stream(self) -> Stream:
        return _Tail(self)

    def spelled(self, token: int) -> bytes | None:
        if token in self.tokenizer.all_special_ids:
            return None
        rust = getattr(self.tokenizer, "backend_tokenizer", None)
        return self.decode([token]).encode() if rust is None else Subwords(rust).spelled(token)

    def written(self, token: int) -> str:
        return str(self.tokenizer.convert_ids_to_tokens(token))

    @property
    def special(self) -> Sequence[str]:
        return [str(name) for name in self.tokenizer.all_special_tokens]

    def chat(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        if self.template is None:
            raise Unsupported("This tokenizer has no chat template; give it plain text instead of messages.")
        try:
            named = {"tools": list(tools)} if tools else {}
            written = self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True, **named
            )
            return str(written)
        except Exception as error:  # a template is a program from the model's file, and may fail in any way
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UsageError(f"The model's chat template refuses these messages: {reason}") from error


class _Tail:
    """Text as its tokens come, from the last piece shown on: what a token adds may depend on the one before."""

    def __init__(self, tokenizer: Adopted) -> None:
        self.tokenizer, self.shown, self.waiting = tokenizer, [], []  # type: ignore[var-annotated]

    def push(self, token: int) -> str:
        self.waiting.append(token)
        before = self.tokenizer.decode(self.shown)
        text = self.tokenizer.decode(self.shown + self.waiting)
        if len(text) <= len(before) or text.endswith("\ufffd"):
            return ""
        self.shown, self.waiting = self.waiting, []
        return text[len(before) :]
