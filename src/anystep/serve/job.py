"""One request as a run: which process, which method, which budget, and what its states become as choices."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from anystep import search
from anystep.errors import AnystepError
from anystep.ledger import Budget
from anystep.process import Stepped
from anystep.run import Run
from anystep.serve.models import Models
from anystep.serve.prompt import asked, continues, written
from anystep.serve.refusal import Refused
from anystep.serve.shapes import Chat, Completion, Request

if TYPE_CHECKING:
    from anystep.language.process import LanguageProcess
    from anystep.naming import Asks
    from anystep.serve.share import Desk

SHORT = 16  # tokens of a completion that names no max_tokens: OpenAI's own default
MOST_STATES = 1024  # the largest n that a method may be asked for
GREEDY = "greedy"


@dataclass(frozen=True)
class Said:
    """One choice: its text, and "stop" or "length". reason: the stop text that ended it; None where it ended by itself.
    pieces: its tokens as they were shown, where they were kept."""

    text: str | None
    finish: str
    reason: str | None = None
    pieces: tuple[Any, ...] = ()


@dataclass
class Job:
    """A run with what its answer must be put into. `listener` hears each piece of a plain run: (choice, piece)."""

    request: Request
    model: str
    process: LanguageProcess
    plain: bool
    method: str
    stops: tuple[str, ...]
    run: Run = field(init=False)
    listener: Callable[[int, Any], None] = lambda choice, piece: None
    pieces: dict[int, list[Any]] = field(default_factory=dict)
    place: dict[int, int] = field(default_factory=dict)  # a sample's key to its choice, in a plain run

    @property
    def prompt_tokens(self) -> int:
        return len(self.process.prompt)

    def heard(self, key: int, piece: Any) -> None:
        """A piece from the engine's thread."""
        choice = self.place.get(key)
        if choice is not None:
            if self.process.logprobs is not None:
                self.pieces.setdefault(choice, []).append(piece)
            self.listener(choice, piece)

    def said(self) -> tuple[Said, ...]:
        """The choices, once the run has ended: all samples of a plain one in order, else its answer alone."""
        return self._samples() if self.plain else (self._answer(),)

    def _answer(self) -> Said:
        answer = self.run.result()
        if answer.row is None or answer.population is None:
            return Said(None, "length")
        return self._say(answer.population.take([answer.row]).states)

    def _samples(self) -> tuple[Said, ...]:
        _, told, *_ = self.run.journal  # after the start: the step, with every sample as far as it came
        first = told.replies[0]
        assert isinstance(first, Stepped)
        found = {i: first.states.take(np.array([i])) for i in range(len(self.place))}
        last = self.run.books.latest
        if last is not None:  # one that went on at the end has come further
            rows = {self.place[key]: row for row, key in enumerate(last.key.tolist())}
            found |= {i: last.states.take(np.array([row])) for i, row in rows.items()}
        return tuple(self._say(found[i], i) for i in sorted(found))

    def _say(self, state: Any, choice: int = 0) -> Said:
        (text,), (out,) = self.process.texts(state), state.outputs()
        ended = bool(out) and out[-1] in self.process.engine.tokenizer.ends
        finish = "stop" if ended or any(end in text for end in self.process.end) else "length"
        at, reason = min(((text.index(stop), stop) for stop in self.stops if stop in text), default=(len(text), None))
        text = text if self.request.include_stop_str_in_output else text[:at]
        return Said(text, finish, reason, tuple(self.pieces.get(choice, ())))


async def job(request: Request, models: Models) -> Job:
    """The run that answers `request`, with its free first round done; Refused for what cannot be meant."""
    name, suffix = models.split(request.model)
    method = _method(request, suffix)
    alternatives = request.alternatives()
    if method is not None and method != GREEDY:
        _only_plain(request, method)
    _only_streamed(request)
    longest = request.longest()
    try:
        engine = await models.engine(name)
    except AnystepError as error:
        raise Refused(
            f"{name} cannot be loaded; the server's log says why.", status=500, code="model_not_loaded"
        ) from error
    try:
        options = {"logprobs": alternatives, **_options(request, engine, method, longest)}
        return await asyncio.to_thread(_job, request, name, engine, models.desk(engine), method, options)
    except Refused:
        raise
    except AnystepError as error:
        raise Refused(str(error), param=None, code="invalid_value") from None


def _job(request: Request, name: str, engine: Any, desk: Desk, method: str | None, options: dict[str, Any]) -> Job:
    from anystep.naming import named_method
    from anystep.serve.share import Shared

    plain = method is None or method == GREEDY
    text, question = _prompt(request, engine)
    process = Shared(desk, engine, text, chat=False, **options)
    chosen = (
        search.sample(n=request.n) if plain else named_method(str(method), question, asks=_own(name, engine)).method
    )
    _bounded(chosen)
    told = repr(chosen) if method is None else method
    made = Job(request, name, process, plain, told, tuple(request.stop))
    reserve = 0.0 if plain else 0.1  # a plain sample that was cut is told as it is
    made.run = run = Run(process, chosen, _budget(request), _seed(request), reserve, show=made.heard)
    while run.calls and all(call.verb == "start" for call in run.calls):  # free, and what comes next may be refused
        run.tell([call.perform() for call in run.calls])
    if plain:  # one step, to the end, of all samples side by side
        made.place = {key: i for i, key in enumerate(run.calls[0].keys.tolist())}
    return made


def _own(name: str, engine: Any) -> Asks:
    """A judge is the served model itself: a client has no other loaded, and no server called."""

    def asks(other: str | None) -> Any:
        if other is not None:
            raise Refused(f"Here {name} judges; write judge without model=....", param="model", code="invalid_value")
        return engine

    return asks


def _prompt(request: Request, engine: Any) -> tuple[str, str]:
    """The text to continue, and the question in it."""
    if isinstance(request, Completion):
        return request.prompt, request.prompt
    assert isinstance(request, Chat)
    go_on = continues(request.messages, request.continue_final_message, request.add_generation_prompt)
    return written(engine.tokenizer, request.messages, go_on), asked(request.messages)


def _options(request: Request, engine: Any, method: str | None, longest: int | None) -> dict[str, Any]:
    """How the process samples. A plain request follows OpenAI's defaults, a method the model's own."""
    ours = request.anystep
    own = {k: v for k, v in engine.generation.items() if k in ("unit", "stop", "max_tokens", "at_cap", "end")}
    plain = {"unit": "completion", "max_tokens": SHORT if isinstance(request, Completion) else engine.config.context}
    options: dict[str, Any] = plain if method in (None, GREEDY) else own
    given = {"unit": ours.unit, "stop": ours.step, "max_tokens": longest}
    options |= {k: v for k, v in given.items() if v is not None}
    options["end"] = (*own.get("end", ()), *request.stop)
    options["temperature"] = 1.0 if request.temperature is None else float(request.temperature)
    if method == GREEDY:
        options["temperature"] = 0.0
    options["top_p"] = 1.0 if request.top_p is None else float(request.top_p)
    return options


def _method(request: Request, suffix: str | None) -> str | None:
    inside = request.anystep.method
    if suffix is not None and inside is not None and suffix != inside:
        raise Refused(
            "the model's name and anystep.method name two methods; give one.", param="anystep.method",
            code="invalid_value",
        )  # fmt: skip
    method = inside if suffix is None else suffix
    if method is not None and method.strip() == GREEDY:
        if request.temperature:
            raise Refused("greedy is temperature 0; leave one of them out.", param="temperature", code="invalid_value")
        return GREEDY
    if method is None and (request.anystep.unit or request.anystep.step):
        raise Refused(
            "anystep.unit and anystep.step say how a method's steps are cut; name a method.",
            param="anystep.unit" if request.anystep.unit else "anystep.step",
            code="invalid_value",
        )
    return method


def _only_plain(request: Request, method: str) -> None:
    """What is offered for samples as they are, and not for a method's answer."""
    if request.n != 1:
        raise Refused(
            f"n counts plain choices, and a method gives one answer: leave n out, and say how many in {method[:60]!r}.",
            param="n",
            code="invalid_value",
        )
    if request.alternatives() is not None:
        raise Refused(
            "logprobs are told of plain samples, not of a method's answer: leave them out, or leave the method out.",
            param="logprobs",
            code="unsupported_parameter",
        )


def _only_streamed(request: Request) -> None:
    """What says how a stream looks needs a stream."""
    wanted = {"stream_options": request.stream_options, "anystep.progress": request.anystep.progress}
    for name, value in wanted.items():
        if value and not request.stream:
            raise Refused(f"{name} needs stream: true beside it.", param=name, code="invalid_value")


def _bounded(method: Any) -> None:
    for name, value in method.options:
        if isinstance(value, int) and value > MOST_STATES:
            raise Refused(
                f"{method.name}({name}={value}): at most {MOST_STATES} here.", param="anystep.method",
                code="invalid_value",
            )  # fmt: skip


def _budget(request: Request) -> Budget | None:
    caps = request.anystep.budget
    return None if caps is None else Budget(**caps.model_dump(exclude_none=True))


def _seed(request: Request) -> int:
    """The seed asked for, else a fresh one, so that equal requests are independent samples."""
    one, other = request.seed, request.anystep.seed
    if one is not None and other is not None and one != other:
        raise Refused("seed and anystep.seed differ; give one.", param="seed", code="invalid_value")
    given = other if one is None else one
    return secrets.randbits(53) if given is None else given
