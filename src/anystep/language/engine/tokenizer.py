"""Text to tokens and back, with what the model's own file says about its vocabulary, ends and chat template."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Rust
from tokenizers.decoders import DecodeStream

from anystep.errors import ModelError, Unsupported, UsageError
from anystep.language.engine.pieces import add_words, from_scores

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")  # digits one by one


class Stream(Protocol):
    """Turns tokens into text as they come; a character is shown once all of its bytes are there."""

    def push(self, token: int) -> str: ...


class Tokenizer(Protocol):
    """What the engine and its processes ask of a vocabulary. `template` is the chat template, None without one;
    `begin` is what every prompt begins with, in tokens."""

    template: str | None
    begin: tuple[int, ...]

    @property
    def size(self) -> int: ...
    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        ...

    def encode(self, text: str) -> list[int]: ...
    def decode(self, tokens: Sequence[int]) -> str: ...
    def stream(self) -> Stream: ...
    def spelled(self, token: int) -> bytes | None:
        """The bytes that a token stands for; None for a special one, which stands for no text."""
        ...

    def written(self, token: int) -> str:
        """A token's name in the vocabulary."""
        ...

    @property
    def special(self) -> Sequence[str]:
        """The names of special tokens, which `encode` reads as them."""
        ...

    def chat(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """The text that asks for the next answer in a conversation; Unsupported without a template. tools: told by
        those templates that know of tools, as functions with a name, a description and parameters."""
        ...


class Subwords:
    """A byte-pair vocabulary run by the `tokenizers` library."""

    def __init__(
        self,
        rust: Rust,
        ends: Iterable[int] = (),
        template: str | None = None,
        begin: tuple[int, ...] = (),
        **named: str,
    ) -> None:
        """`named` are the special tokens a template may mention: bos_token, eos_token and the like."""
        self.rust, self.ends, self.template, self.begin, self.named = rust, frozenset(ends), template, begin, named

    @classmethod
    def from_gguf(cls, meta: Mapping[str, Any]) -> Subwords:
        """From the fields of a GGUF file whose tokenizer is of the GPT-2 kind (byte-level pairs with merges) or of the
        kind that llama.cpp calls "llama" (SentencePiece pairs with scores)."""
        own = {name.removeprefix("tokenizer.ggml."): value for name, value in meta.items()}
        tokens, kinds, pre = own["tokens"], own["token_type"], own.get("pre", "gpt-2")
        if own["model"] == "gpt2":
            rust = byte_level(tokens, kinds, own["merges"], pre)
        elif own["model"] == "llama":
            rust = from_scores(tokens, own["scores"], kinds, own.get("add_space_prefix", True))
        else:
            raise ModelError(f"Tokenizer kind {own['model']!r} is not supported in GGUF; 'gpt2' and 'llama' are.")
        named = {
            f"{name}_token": tokens[meta[f"tokenizer.ggml.{name}_token_id"]]
            for name in ("bos", "eos")
            if f"tokenizer.ggml.{name}_token_id" in meta
        }
        keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
        ends = [meta[key] for key in keys if key in meta]
        begins = own.get("add_bos_token", own["model"] == "llama" or pre == "llama-bpe")
        begin = (own["bos_token_id"],) if begins and "bos_token_id" in own else ()
        return cls(rust, ends, meta.get("tokenizer.chat_template"), begin, **named)

    @classmethod
    def from_folder(cls, folder: Path, ends: Iterable[int] = ()) -> Subwords:
        """From tokenizer.json, with the template of chat_template.jinja or tokenizer_config.json where there is one."""
        path = folder / "tokenizer.json"
        if not path.exists():
            raise ModelError(f"{folder} has no tokenizer.json; save one with transformers' fast tokenizer.")
        try:
            rust = Rust.from_file(str(path))
            beside = folder / "tokenizer_config.json"
            config = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
        except Exception as error:  # the library raises bare Exception for a malformed file
            raise ModelError(f"{path} cannot be read as a tokenizer ({' '.join(str(error).split())}).") from error
        template, own = config.get("chat_template"), folder / "chat_template.jinja"
        if isinstance(template, list):
            template = {entry["name"]: entry["template"] for entry in template}.get("default")
        template = own.read_text(encoding="utf-8") if own.exists() else template
        values = {name: config.get(name) for name in ("bos_token", "eos_token")}
        named = {n: v if isinstance(v, str) else v["content"] for n, v in values.items() if v}
        ends = frozenset(ends) or frozenset(filter(None, [rust.token_to_id(named.get("eos_token", ""))]))
        return cls(rust, ends, template, first_tokens(rust, config.get("add_bos_token"), named), **named)

    @property
    def size(self) -> int:
        return self.rust.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Tokens of `text`; the written names of special tokens become those tokens, as chat templates need."""
        return self.rust.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of `tokens` without special ones; bytes that are no character yet show as U+FFFD."""
        return self.rust.decode(list(tokens), skip_special_tokens=True)

    def stream(self) -> Stream:
        return _Pieces(self.rust)

    def spelled(self, token: int) -> bytes | None:
        name, added = self.written(token), self.rust.get_added_tokens_decoder().get(token)
        if added is not None and added.special:
            return None
        if isinstance(self.rust.decoder, decoders.ByteLevel):
            return bytes(BYTES[character] for character in name) if added is None else name.encode()
        byte = re.fullmatch("<0x([0-9A-F]{2})>", name)  # how a SentencePiece vocabulary falls back to bytes
        return bytes([int(byte[1], 16)]) if byte else name.replace("\u2581", " ").encode()

    def written(self, token: int) -> str:
        return self.rust.id_to_token(token) or ""

    @property
    def special(self) -> Sequence[str]:
        return [word.content for word in self.rust.get_added_tokens_decoder().values() if word.special]

    def chat(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        if self.template is None:
            raise Unsupported("This model's file has no chat template; give it plain text instead of messages.")
        for message in messages:
            if not {"role", "content"} <= message.keys():
                raise UsageError(f"A message looks like {{'role': 'user', 'content': '...'}}, not {dict(message)!r}.")
        world = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        world.globals |= {
            "raise_exception": _refuse,
            "strftime_now": lambda form: datetime.datetime.now().strftime(form),
        }
        try:
            template = world.from_string(self.template)
            more = {"tools": list(tools)} if tools else {}
            return template.render(messages=messages, add_generation_prompt=True, **more, **self.named)
        except Exception as error:  # a template is a program from the model's file, and may fail in any way
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UsageError(f"The model's chat template refuses these messages: {reason}") from error


class Alphabet:
    """One token a character, in the order of `symbols`: the vocabulary of ChainLM."""

    template: str | None = None
    begin: tuple[int, ...] = ()

    def __init__(self, symbols: Sequence[str], end: str = ".") -> None:
        """`end` is the character that ends an answer; it belongs to the text."""
        self.symbols = list(symbols)
        self.index = {symbol: i for i, symbol in enumerate(self.symbols)}
        self.ends = frozenset([self.index[end]] if end in self.index else ())

    @property
    def size(self) -> int:
        return len(self.symbols)

    def encode(self, text: str) -> list[int]:
        try:
            return [self.index[character] for character in text]
        except KeyError as error:
            raise UsageError(f"{error} is not in this model's alphabet: {''.join(self.symbols)!r}.") from error

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of `tokens`; padding (a symbol that is NUL) shows as nothing, a token outside as U+FFFD."""
        text = "".join(self.symbols[token] if token < len(self.symbols) else "\ufffd" for token in tokens)
        return text.replace("\0", "")

    def stream(self) -> Stream:
        return _Characters(self)

    def spelled(self, token: int) -> bytes | None:
        return self.decode([token]).encode() or None

    def written(self, token: int) -> str:
        return self.symbols[token]

    @property
    def special(self) -> Sequence[str]:
        return ()

    def chat(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        raise Unsupported("This model continues text and has no chat template; give it plain text, not messages.")


class _Pieces:
    def __init__(self, rust: Rust) -> None:
        self.rust, self.state = rust, DecodeStream(skip_special_tokens=True)

    def push(self, token: int) -> str:
        return self.state.step(self.rust, token) or ""


class _Characters:
    def __init__(self, alphabet: Alphabet) -> None:
        self.alphabet = alphabet

    def push(self, token: int) -> str:
        return self.alphabet.decode([token])


def _byte_letters() -> dict[str, int]:
    """The letters in which byte-level vocabularies write bytes: printable Latin-1 as itself, others from U+0100 on."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in kept]
    return {chr(byte): byte for byte in kept} | {chr(0x100 + i): byte for i, byte in enumerate(rest)}


BYTES = _byte_letters()


def begun(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """Tokens of a prompt: those of `text`, after what every prompt begins with unless the text has written it."""
    tokens = tuple(tokenizer.encode(text))
    return tokens if not tokens or tokens[: len(tokenizer.begin)] == tokenizer.begin else tokenizer.begin + tokens


def first_tokens(rust: Rust, adds: bool | None, named: Mapping[str, str]) -> tuple[int, ...]:
    """What a directory's tokenizer puts before a text: as its config says, else as its own template does."""
    if adds is not None:
        first = rust.token_to_id(named.get("bos_token", "")) if adds else None
        return () if first is None else (first,)
    written = rust.encode("a", add_special_tokens=True)
    text = written.special_tokens_mask.index(0) if 0 in written.special_tokens_mask else 0
    return tuple(written.ids[:text])


def byte_level(tokens: Sequence[str], kinds: Sequence[int], pairs: Sequence[str], pre: str) -> Rust:
    """A vocabulary of byte-level pairs: its tokens, their kinds, the merges in order, and what splits words before."""
    merges = [(left, right) for left, _, right in (pair.partition(" ") for pair in pairs)]
    vocab = {token: i for i, token in enumerate(tokens)}
    rust = Rust(models.BPE(vocab=vocab, merges=merges, ignore_merges=pre == "llama-bpe"))
    rust.pre_tokenizer = splitter(pre)
    if pre == "qwen2":
        rust.normalizer = normalizers.NFC()
    rust.decoder = decoders.ByteLevel()
    add_words(rust, tokens, kinds)
    return rust


def splitter(name: str) -> pre_tokenizers.PreTokenizer:
    """The pre-tokenizer that llama.cpp calls `name`; ModelError for one not known here, never a near miss."""
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bare = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    known = {
        "gpt-2": plain,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), plain]),
        "llama-bpe": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), bare]),
        "qwen2": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), bare]),
    }
    if name not in known:
        raise ModelError(f"The GGUF pre-tokenizer {name!r} is not known here; known are {', '.join(known)}.")
    return known[name]


def _refuse(message: str) -> None:
    raise TemplateError(message)
