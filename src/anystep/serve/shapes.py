"""What a request may say. Every parameter is honoured or refused by name; none is ignored.

A parameter that is null counts as left out. One that this server cannot honour is let through at the value that changes
nothing (`frequency_penalty: 0`), because clients send those unasked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from anystep.serve.refusal import Refused, unsupported

MOST_CHOICES, MOST_STOPS, MOST_TEXT, MOST_FIELDS = 128, 16, 4_000, 1_000

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "top_k": (0, -1),
    "min_p": (0,),
    "tools": ([],),
    "tool_choice": ("none",),
    "functions": ([],),
    "function_call": ("none",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "echo": (False,),
    "suffix": ("",),
    "best_of": (1,),
    "reasoning_effort": ("none",),
    "ignore_eos": (False,),
}


def _texts(value: Any) -> Any:
    """One stop text stands for a list of one."""
    return [value] if isinstance(value, str) else value


def _prompt(value: Any) -> Any:
    """A list of one prompt stands for the prompt."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        return value[0]
    if isinstance(value, list):
        raise _wrong("a request has one prompt here, and it is text")
    return value


def _content(value: Any) -> Any:
    """Parts of type text joined into one text; other parts are refused."""
    if not isinstance(value, list):
        return value
    found = []
    for part in value:
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise _wrong("a part looks like {'type': 'text', 'text': '...'}")
        if part["type"] != "text":
            raise _wrong(f"a part of type {part['type'][:40]!r} cannot be read here; these models read text alone")
        if not isinstance(part.get("text"), str) or set(part) - {"type", "text"}:
            raise _wrong("a text part is {'type': 'text', 'text': '...'} and nothing more")
        found.append(part["text"])
    return "".join(found)


def _message(value: Any) -> Any:
    """Without what is null, as clients send back a message they were given."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def _wrong(what: str) -> PydanticCustomError:
    return PydanticCustomError("wrong", "{what}", {"what": what})


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Stops = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_texts), Field(max_length=MOST_STOPS)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Whole = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Message(Shape):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_content)]


Messages = Annotated[list[Annotated[Message, BeforeValidator(_message)]], Field(min_length=1, fail_fast=True)]


class Caps(Shape):
    """`anystep.Budget`."""

    tokens: Whole | None = None
    generated: Whole | None = None
    evaluations: Whole | None = None
    flops: Positive | None = None
    calls: Whole | None = None
    seconds: Positive | None = None


class Ours(Shape):
    """The request's `anystep` object: a method as its call, what it may spend, and how its steps are cut."""

    method: Annotated[str, Field(min_length=1, max_length=MOST_TEXT)] | None = None
    budget: Caps | None = None
    seed: Seed | None = None
    unit: Literal["step", "token", "completion"] | None = None
    step: Annotated[str, Field(min_length=1, max_length=MOST_TEXT)] | None = None
    progress: bool = False


class StreamOptions(Shape):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class Request(Shape):
    """What chat and completions have in common."""

    model: Annotated[str, Field(min_length=1, max_length=MOST_TEXT)]
    max_tokens: Whole | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: Stops = []
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] = 1
    seed: Seed | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    include_stop_str_in_output: bool = False
    anystep: Ours = Ours()

    def alternatives(self) -> int | None:
        """How many likeliest tokens are told with each token's log-probability; None where none is asked for."""
        raise NotImplementedError

    def longest(self) -> int | None:
        return self.max_tokens


class Chat(Request):
    messages: Messages
    max_completion_tokens: Whole | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None

    def alternatives(self) -> int | None:
        if self.top_logprobs is not None and not self.logprobs:
            raise Refused("top_logprobs needs logprobs: true beside it.", param="top_logprobs", code="invalid_value")
        return (self.top_logprobs or 0) if self.logprobs else None

    def longest(self) -> int | None:
        given = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(given) > 1:
            raise Refused(
                "max_tokens and max_completion_tokens are two names of one figure; give one of them.",
                param="max_tokens",
                code="invalid_value",
            )
        return next(iter(given), None)


class Completion(Request):
    prompt: Annotated[str, BeforeValidator(_prompt)]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    def alternatives(self) -> int | None:
        return self.logprobs


class Tokenize(Shape):
    """vLLM's `prompt` or `messages`, or llama.cpp's `content`."""

    model: Annotated[str, Field(min_length=1, max_length=MOST_TEXT)] | None = None
    prompt: str | None = None
    content: str | None = None
    messages: Messages | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None


S = TypeVar("S", bound=Shape)


def parsed(body: bytes) -> dict[str, Any]:
    """The body's JSON object."""
    try:
        found = json.loads(body, parse_constant=_no_constant, object_pairs_hook=_object)
        json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair is no text: no tokenizer takes it
    except (ValueError, RecursionError) as error:  # UnicodeError is a ValueError too
        raise Refused(f"The body is not JSON: {' '.join(str(error).split())[:200]}", code="invalid_json") from None
    if not isinstance(found, dict):
        raise Refused('The body must be a JSON object, such as {"model": "...", "messages": [...]}.')
    return found


def read(shape: type[S], body: bytes) -> S:
    """The request that `body` holds; Refused, naming the parameter, for anything that would not be honoured."""
    given = {name: value for name, value in _opened(parsed(body)).items() if value is not None}
    for name in [name for name in given if name in NEUTRAL and name not in shape.model_fields]:
        if given.pop(name) not in NEUTRAL[name]:
            harmless = json.dumps(NEUTRAL[name][0])
            raise unsupported(name, f"leave it out, or send {harmless}, which changes nothing.")
    try:
        return shape.model_validate(given)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False, include_context=False)[0], shape) from None


def _opened(given: dict[str, Any]) -> dict[str, Any]:
    """With the fields of a literal `extra_body` beside the others, which is where some clients leave them."""
    extra = given.pop("extra_body", None)
    if extra is None:
        return given
    if not isinstance(extra, dict):
        raise Refused("extra_body is an object of further parameters.", param="extra_body", code="invalid_value")
    for name, value in extra.items():
        if given.get(name, value) != value:
            raise Refused(
                f"{name[:80]} is given twice, once in extra_body, with different values; give it once.",
                param=name[:80],
                code="invalid_value",
            )
    return extra | given


def _refusal(error: Mapping[str, Any], shape: type[Shape]) -> Refused:
    param = _written(error["loc"])
    if error["type"] == "extra_forbidden":
        return Refused(f"Unknown parameter: {param[:80]!r}.", param=param[:80], code="unknown_parameter")
    if error["type"] == "missing":
        return Refused(f"Missing required parameter: {param!r}.", param=param, code="missing_required_parameter")
    return Refused(f"Invalid value for {param!r}: {error['msg']}.", param=param, code="invalid_value")


def _written(loc: tuple[int | str, ...]) -> str:
    """messages[0].content"""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; one of very many fields is refused before each of them is looked at and complained of."""
    if len(pairs) > MOST_FIELDS:
        raise ValueError(f"an object has at most {MOST_FIELDS} fields here, not {len(pairs):,}")
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
