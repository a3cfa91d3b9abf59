"""Requests at one desk share passes, and neither their answers nor their bills show it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from anystep import Answer, Budget, Run, drive, reward, search
from anystep.language import LanguageProcess
from anystep.serve import share
from anystep.serve.share import Asked, Desk, Shared
from gates import WAIT, Gate
from models import chain_engine, tiny_engine

PROMPTS = ("C4 7 9 3 4>97?", "A6+8+9+6-5?", "A1+2+3+4+5?", "C1 2 3 4 5>17?")
Work = Callable[[], Any]


class Watched(Desk):
    """A desk that tells when someone has come to it."""

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Semaphore(0)

        class Waiting(list[Asked]):
            def append(inner, asked: Asked) -> None:  # noqa: N805
                super().append(asked)
                self.came.release()

        self.waiting = Waiting()

    def come(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.came.acquire(timeout=WAIT)


def go(work: Work) -> tuple[threading.Thread, list[Any]]:
    """`work` in a thread, and where its result will be."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    return thread, found


def run_of(process: Any, n: int = 1, seed: int = 1, budget: Budget | None = None) -> Run:
    return Run(process, search.sample(n=n), budget, seed=seed, reserve=0.0)


def texts(process: Any, answer: Answer) -> tuple[str, ...]:
    assert answer.population is not None
    return process.texts(answer.population.states)  # type: ignore[no-any-return]


def alone(prompt: str, n: int = 1, seed: int = 1, **options: Any) -> tuple[tuple[str, ...], Answer, int]:
    """Texts, answer and passes of a run that has a fresh engine to itself."""
    engine = chain_engine()
    process = LanguageProcess(engine, prompt, unit="completion", **options)
    (answer,) = drive(run_of(process, n, seed))
    return texts(process, answer), answer, engine.counters.passes


def test_who_comes_joins_at_the_next_token(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, desk = chain_engine(), Watched()
    gate = Gate(engine, monkeypatch)
    processes = [Shared(desk, engine, prompt, unit="completion") for prompt in PROMPTS[:2]]
    first = go(lambda: drive(run_of(processes[0]))[0])
    gate.let(3)
    gate.arrived()
    second = go(lambda: drive(run_of(processes[1]))[0])
    desk.come(2)
    gate.free()
    passes = []
    for prompt, process, (thread, found) in zip(PROMPTS[:2], processes, (first, second), strict=True):
        thread.join(WAIT)
        expected, by_itself, took = alone(prompt)
        passes.append(took)
        assert texts(process, found[0]) == expected
        mine, its = found[0].cost, by_itself.cost
        assert (mine.prompt, mine.generated, mine.evaluations) == (its.prompt, its.generated, its.evaluations)
        assert mine.flops == pytest.approx(its.flops) and mine.attended == its.attended
    assert gate.passes == max(passes[0], 4 + passes[1])  # side by side from the fourth on: not one more


def test_one_that_is_cancelled_leaves_the_others_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, desk = chain_engine(), Watched()
    gate = Gate(engine, monkeypatch)
    runs = [run_of(Shared(desk, engine, prompt, unit="completion")) for prompt in PROMPTS[:3]]
    working = [go(lambda run=run: drive(run)) for run in runs]  # type: ignore[misc]
    desk.come(3)
    gate.let(5)
    gate.arrived()
    runs[1].cancel()
    gate.free()
    for thread, _ in working:
        thread.join(WAIT)
    for i in (0, 2):
        answer = runs[i].answer
        assert answer is not None and (answer.text,) == alone(PROMPTS[i])[0]
    assert runs[1].answer is not None and runs[1].answer.stopped_because == "cancelled"
    assert runs[1].spent.generated <= 6


def test_a_budget_stops_its_own_rows_alone() -> None:
    engine, desk = chain_engine(), Desk()
    runs = [
        run_of(Shared(desk, engine, prompt, unit="completion"), 3, budget=budget)
        for prompt, budget in zip(PROMPTS, (None, Budget(tokens=35), Budget(tokens=5), None), strict=True)
    ]
    for thread, _ in [go(lambda run=run: drive(run)) for run in runs]:  # type: ignore[misc]
        thread.join(WAIT)
    for i, run in enumerate(runs):
        assert run.answer is not None
        if i in (0, 3):
            assert texts(run.process, run.answer) == alone(PROMPTS[i], 3)[0]
        else:
            assert run.answer.stopped_because == "tokens"
    assert runs[1].spent.tokens <= 35 and runs[2].spent.tokens == 0


def test_one_that_cannot_pay_for_its_prompt_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, desk = chain_engine(), Watched()
    gate = Gate(engine, monkeypatch)
    budgets = (None, Budget(tokens=3), None)
    runs = [
        run_of(Shared(desk, engine, prompt, unit="completion"), budget=budget)
        for prompt, budget in zip(PROMPTS, budgets, strict=False)
    ]
    working = [go(lambda run=run: drive(run)) for run in runs]  # type: ignore[misc]
    desk.come(3)
    gate.free()
    for thread, _ in working:
        thread.join(WAIT)
    for i in (0, 2):
        answer, (expected, by_itself, _) = runs[i].result(), alone(PROMPTS[i])
        assert (answer.text,) == expected
        mine, its = answer.cost, by_itself.cost
        assert (mine.prompt, mine.generated, mine.evaluations) == (its.prompt, its.generated, its.evaluations)
    assert runs[1].spent.tokens == 0 and runs[1].result().stopped_because == "tokens"


def test_requests_under_other_rules_share_passes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[str] = []
    end = Desk._end

    def told(self: Desk, asked: Asked) -> None:
        assert asked.member is not None
        ends.append(asked.member.process.name)
        end(self, asked)

    monkeypatch.setattr(Desk, "_end", told)
    engine, desk = tiny_engine(), Watched()
    gate = Gate(engine, monkeypatch)
    long = Shared(desk, engine, "what is next? ", unit="completion", max_tokens=300, name="long")
    short = Shared(desk, engine, "and then? ", unit="completion", max_tokens=5, temperature=0.5, name="short")
    assert long.merges() != short.merges()
    first = go(lambda: drive(run_of(long))[0])
    gate.let(3)
    second = go(lambda: drive(run_of(short))[0])
    desk.come(2)
    gate.free()
    for thread, _ in (first, second):
        thread.join(WAIT)
    assert ends == ["short", "long"]
    most = 0
    for process, prompt, (_, found) in ((long, "what is next? ", first), (short, "and then? ", second)):
        options = {"max_tokens": process.max_tokens, "name": process.name, "temperature": process.temperature}
        fresh = LanguageProcess(tiny_engine(), prompt, unit="completion", **options)
        assert texts(process, found[0]) == texts(fresh, drive(run_of(fresh))[0])
        most = max(most, fresh.engine.counters.passes)
    assert gate.passes == most  # the short one took none of its own


def test_single_passes_have_their_turn_between_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search over tokens, which shares no batch, beside a long sample: neither waits for the other's end."""
    engine, desk = tiny_engine(), Watched()
    gate, turns = Gate(engine, monkeypatch), []
    perform = Desk._errand

    def told(self: Desk, asked: Asked, errand: Any) -> None:
        perform(self, asked, errand)
        turns.append(gate.passes)

    monkeypatch.setattr(Desk, "_errand", told)
    judge = reward(lambda states: [text.count("e") for text in states.texts()], "e", (0, 9))
    long = Shared(desk, engine, "what is next? ", unit="completion", max_tokens=200)
    tokens = Shared(desk, engine, "and then? ", unit="token", max_tokens=6)
    first = go(lambda: drive(run_of(long))[0])
    gate.let(3)
    second = go(lambda: drive(Run(tokens, search.beam(width=2, branch=3, reward=judge), seed=1))[0])
    desk.come(2)
    gate.free()
    for thread, _ in (first, second):
        thread.join(WAIT)
    assert len(turns) == 6 and turns[-1] < 100 < gate.passes
    fresh = LanguageProcess(tiny_engine(), "and then? ", unit="token", max_tokens=6)
    (expected,) = drive(Run(fresh, search.beam(width=2, branch=3, reward=judge), seed=1))
    assert second[1][0].text == expected.text
    assert len(first[1][0].text) == 200 or first[1][0].population.done.all()


def test_a_race_goes_on_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, desk = chain_engine(), Watched()
    gate = Gate(engine, monkeypatch)
    race = Shared(desk, engine, PROMPTS[0], unit="completion")
    other = Shared(desk, engine, PROMPTS[1], unit="token", max_tokens=4)
    first = go(lambda: drive(Run(race, search.first_finish(n=4, k=2), seed=1))[0])
    gate.let(3)
    judge = reward(lambda states: [len(text) for text in states.texts()], "length", (0, 99))
    second = go(lambda: drive(Run(other, search.beam(width=1, branch=2, reward=judge), seed=1))[0])
    desk.come(2)
    gate.free()
    for thread, _ in (first, second):
        thread.join(WAIT)
    fresh = LanguageProcess(chain_engine(), PROMPTS[0], unit="completion")
    (expected,) = drive(Run(fresh, search.first_finish(n=4, k=2), seed=1))
    assert texts(race, first[1][0]) == texts(fresh, expected)
    mine, its = first[1][0].cost, expected.cost
    assert (mine.prompt, mine.generated) == (its.prompt, its.generated)
    assert mine.evaluations <= its.evaluations  # rows that are still equal when they are opened again share a pass


def test_a_batch_has_a_largest_size_and_is_not_cut_for_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "MOST_ROWS", 4)
    engine, desk = chain_engine(), Watched()
    gate = Gate(engine, monkeypatch)
    processes = [Shared(desk, engine, prompt, unit="completion") for prompt in PROMPTS[:3]]
    working = [go(lambda p=p: drive(run_of(p, 3))[0]) for p in processes]  # type: ignore[misc]
    desk.come(3)
    gate.free()
    most = 0
    for prompt, process, (thread, found) in zip(PROMPTS, processes, working, strict=False):
        thread.join(WAIT)
        expected, _, passes = alone(prompt, 3)
        most += passes
        assert texts(process, found[0]) == expected
    assert gate.passes <= most


def test_many_at_once_with_every_kind_of_step() -> None:
    """Samples, races and step-wise filters, from threads that come as they like: each answer is the one alone."""
    from anystep import verify

    engine, desk = chain_engine(), Desk()
    judge = verify.chain_steps().log_odds()
    methods = [search.sample(n=2), search.first_finish(n=3), search.particle_filter(n=4, potential=judge)]
    cases = [(PROMPTS[i % 4], methods[i % 3], i) for i in range(9)]
    options: dict[str, Any] = {"stop": "\n", "max_tokens": 60}

    def work(prompt: str, method: Any, seed: int) -> Answer:
        return drive(Run(Shared(desk, engine, prompt, **options), method, seed=seed))[0]

    working = [go(lambda case=case: work(*case)) for case in cases]  # type: ignore[misc]
    for (prompt, method, seed), (thread, found) in zip(cases, working, strict=True):
        thread.join(WAIT)
        (expected,) = drive(Run(LanguageProcess(chain_engine(), prompt, **options), method, seed=seed))
        assert found[0].text == expected.text


def test_an_error_reaches_all_who_were_in_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, desk = chain_engine(), Desk()

    def broken(*_: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(engine, "run", broken)
    for prompt in PROMPTS[:2]:
        with pytest.raises(MemoryError):
            drive(run_of(Shared(desk, engine, prompt, unit="completion")))
    assert desk.waiting == []
