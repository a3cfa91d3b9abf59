"""What can a server do, and how do the servers that are met most often differ?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Support = Literal["yes", "ignored", "refused"]


@dataclass(frozen=True)
class Offers:
    """What a server can do. A thing is honoured, ignored in silence, or refused with a 400.

    chat, completions, models, tokenize: the routes it has. usage: `stream_options.include_usage`. continuous: figures
    in every chunk, of its choice. continuation: a trailing assistant message goes on when `continue_final_message`
    asks for it, or always. stop_reason: says which stop string ended a choice. others: parameters that it does not
    know, `accepts` apart, which a script may read. each: figures of usage are of one choice, so several choices have
    several, and a whole answer has the first one's alone. echoes: a whole answer that continues a message begins with
    that message. plain: raw completions have their log-probabilities as chats do, and a chat's role comes with null
    for content. owner: who lists its models, by which clients tell what kind of server it is.
    """

    chat: bool = True
    completions: bool = True
    models: bool = True
    tokenize: bool = False
    n: Support = "yes"
    logprobs: Support = "yes"
    seed: Support = "yes"
    usage: Support = "yes"
    continuous: Support = "yes"
    continuation: Literal["yes", "ignored", "refused", "always"] = "yes"
    stop_reason: bool = True
    each: bool = False
    echoes: bool = False
    plain: bool = False
    owner: str = "anystep"
    others: Literal["ignored", "refused"] = "ignored"
    accepts: tuple[str, ...] = ()


# As met in 2026: llama.cpp as measured on a real one (tests/integration/test_real_server.py), the others by their
# documents. vLLM's needs the flags for a continuation; OpenAI's refuses what it does not know, and continues nothing.
LLAMA_CPP = Offers(
    continuation="always",
    continuous="ignored",
    stop_reason=False,
    each=True,
    echoes=True,
    plain=True,
    owner="llamacpp",
)
VLLM = Offers(tokenize=True, owner="vllm")
OPENAI = Offers(
    completions=False,
    continuation="refused",
    continuous="refused",
    stop_reason=False,
    others="refused",
    accepts=("reasoning_effort",),
    owner="system",
)
