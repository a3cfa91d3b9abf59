"""A Python function as a tool: what a model is told of it, and what a model hands over, checked."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, NotRequired, get_args, get_origin, overload

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError, to_json
from typing_extensions import TypedDict

from anystep.errors import UsageError
from anystep.ledger import FREE, Cost

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what servers accept
SHOWN = 300  # characters of a complaint that the model is told


class Misuse(Exception):
    """What a model asked for cannot be done; the message is the result that it reads."""


@dataclass(frozen=True)
class Tool:
    """A function that a model may call. Made by `tool`; calling it calls the function.

    function: sync or async. world: its first argument is the trajectory's world, and it returns (result, new world).
    final: a call that succeeds ends the trajectory, and its result is the answer. on_error: whether an exception or a
    time-out is told to the model ("tell") or fails the state ("fail"). timeout: seconds a call may take, None for no
    bound. cost: paid before each call that is made. longest: characters of a result that the model is shown.
    """

    function: Callable[..., Any]
    name: str
    description: str
    world: bool = False
    final: bool = False
    on_error: Literal["tell", "fail"] = "tell"
    timeout: float | None = 30.0
    cost: Cost = FREE
    longest: int = 10_000
    signature: inspect.Signature = field(repr=False, compare=False, kw_only=True)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self.function(*args, **named)

    @cached_property
    def _arguments(self) -> TypeAdapter[dict[str, Any]]:
        """Reads the arguments: an object with these keys and no others."""
        fields: dict[str, Any] = {}
        for parameter in list(self.signature.parameters.values())[self.world :]:
            kind = _described(parameter)
            fields[parameter.name] = kind if parameter.default is parameter.empty else NotRequired[kind]
        make: Any = TypedDict
        shape = make(self.name, fields)
        shape.__pydantic_config__ = ConfigDict(extra="forbid")
        return TypeAdapter(shape)

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The JSON schema of its arguments."""
        schema = self._arguments.json_schema(schema_generator=_Untitled)
        return {k: v for k, v in schema.items() if k != "title"} | {"properties": schema.get("properties", {})}

    @cached_property
    def _world(self) -> TypeAdapter[Any]:
        first = next(iter(self.signature.parameters.values()))
        return TypeAdapter(Any if first.annotation is first.empty else first.annotation)

    def described(self) -> dict[str, Any]:
        """What a model is told, in the form that servers and chat templates take."""
        about = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": about}

    def checked(self, arguments: str) -> dict[str, Any]:
        """The function's arguments from what a model wrote; raises Misuse with what is wrong, for the model to read."""
        try:
            given = json.loads(arguments or "{}", parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise Misuse(f"the arguments of {self.name} are no JSON ({_short(error)}): {_short(arguments)}") from None
        if not isinstance(given, dict):
            raise Misuse(f"the arguments of {self.name} must be a JSON object, not {_short(arguments)}")
        try:
            return dict(self._arguments.validate_python(given))
        except ValidationError as error:
            wrong = [f"{_place(e['loc'])}: {e['msg']}" for e in error.errors(include_url=False, include_input=False)]
            raise Misuse(f"wrong arguments for {self.name}: {_short('; '.join(wrong))}") from None
        except Exception as error:  # a type's own validator may raise anything
            raise Misuse(f"wrong arguments for {self.name}: {type(error).__name__}: {_short(error)}") from None

    def read_world(self, text: str) -> Any:
        """The world as the function wants it: a copy of its own, so that nothing it does to it reaches others."""
        return self._world.validate_json(text)


@overload
def tool(function: Callable[..., Any], /, **options: Any) -> Tool: ...
@overload
def tool(**options: Any) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a function: `tool(add)`, or `@tool`, or `@tool(timeout=5, on_error="fail")`.

    name: the function's by default. description: its docstring by default. The other options are `Tool`'s. The schema
    comes from the annotations, in pydantic's reading; `Annotated[int, "what it is"]` describes a parameter. Raises
    UsageError for a signature that cannot be told to a model.
    """
    if function is None:
        return lambda function: _made(function, **options)
    return _made(function, **options)


def _made(
    function: Any, *, name: str | None = None, description: str | None = None, world: bool = False, **options: Any
) -> Tool:
    if isinstance(function, Tool):
        return function
    name = getattr(function, "__name__", "") if name is None else name
    if not callable(function) or not NAME.fullmatch(name):
        raise UsageError(
            f"tool({function!r:.60}) has no name that a model can call; give it one of letters, digits, _ and -: "
            "tool(function, name='add')."
        )
    known = {"final", "on_error", "timeout", "cost", "longest"}
    if unknown := options.keys() - known:
        raise UsageError(
            f"tool({name}, {unknown.pop()}=...): its options are name, description, world, {_listed(known)}."
        )
    _check(name, **options)
    signature = _signature(function, name, world)
    said = inspect.getdoc(function) or "" if description is None else description
    made = Tool(function, name, said.strip(), world, signature=signature, **options)
    try:
        _ = made.parameters, made._world if world else None
    except (PydanticUserError, TypeError, NameError) as error:
        raise UsageError(f"tool({name}): its annotations have no JSON schema ({_short(error)}).") from None
    return made


def _check(
    name: str, on_error: str = "tell", timeout: Any = 1, cost: Any = FREE, longest: Any = 1, final: Any = False
) -> None:
    if on_error not in ("tell", "fail"):
        raise UsageError(f"tool({name}, on_error={on_error!r}): 'tell' the model, or 'fail' the state.")
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0):
        raise UsageError(f"tool({name}, timeout={timeout!r}): seconds above 0, or None for no bound.")
    if not isinstance(cost, Cost):
        raise UsageError(f"tool({name}, cost={cost!r}): a Cost, such as Cost(calls=1, money=0.002).")
    if isinstance(longest, bool) or not isinstance(longest, int) or longest < 1:
        raise UsageError(f"tool({name}, longest={longest!r}): characters, such as 10_000.")
    if not isinstance(final, bool):
        raise UsageError(f"tool({name}, final={final!r}): True or False.")


def _signature(function: Callable[..., Any], name: str, world: bool) -> inspect.Signature:
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, TypeError, ValueError, SyntaxError) as error:
        raise UsageError(f"tool({name}): its signature cannot be read ({_short(error)}).") from None
    parameters = list(signature.parameters.values())
    if world and not parameters:
        raise UsageError(f"tool({name}, world=True): its first argument is the world: def {name}(world, ...).")
    for parameter in parameters[world:]:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise UsageError(f"tool({name}): a model gives arguments by name, so {parameter} cannot be one.")
        if parameter.annotation is parameter.empty:
            raise UsageError(f"tool({name}): say what {parameter.name} is, such as def {name}({parameter.name}: int).")
    return signature


def _described(parameter: inspect.Parameter) -> Any:
    """Its annotation, with the text in `Annotated[int, "what it is"]` and its default as the schema shows them."""
    kind, about = parameter.annotation, list[Any]()
    if get_origin(kind) is Annotated:
        kind, *about = get_args(kind)
    about = [Field(description=each) if isinstance(each, str) else each for each in about]
    with contextlib.suppress(PydanticSerializationError, ValueError):  # a default that JSON has no word for is not told
        if parameter.default is not parameter.empty:
            about.append(Field(json_schema_extra={"default": json.loads(to_json(parameter.default))}))
    return Annotated[(kind, *about)] if about else kind


class _Untitled(GenerateJsonSchema):
    """Schemas without the titles that repeat each name: a model reads, and someone pays for, every token."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number in JSON")


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "arguments"


def _short(what: object) -> str:
    text = " ".join(str(what).split())
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))
