"""Failed runs of agents: their labels are what executing them says, and attribution by replay finds every one."""

from __future__ import annotations

import re
from itertools import islice, product

import pytest

from anystep import Budget, UsageError, tasks, verify
from anystep.language import LanguageProcess, load
from anystep.language.engine.engine import Engine
from anystep.language.train import attribution
from anystep.tasks.agent_logs import (
    CAUSES,
    AgentLog,
    Turn,
    attributed,
    by_replay,
    executed,
    instruction,
    logs,
    read,
    scaffold,
    verdict,
)
from anystep.tasks.agent_logs.log import ERRORS, TURNS, VALUES

SOME = tuple(islice(logs("test", 1), 300))


def run(log: AgentLog, lines: list[str]) -> str:
    """The result of some instructions, as Python does them: not our interpreter."""
    space = dict(zip("abc", log.start, strict=True))
    for line in lines:
        target, expression = line.split("=")
        space[target] = eval(re.sub(r"([a-c])", r"\1", expression), {}, space) % VALUES
    return str(space[log.goal])


def as_python(turn: Turn) -> str:
    return str(turn.instruction)


def test_an_outcome_is_what_python_computes() -> None:
    for log in SOME:
        assert run(log, [as_python(turn) for turn in log.turns]) == str(log.outcome())
        assert run(log, [str(line) for line in log.plan]) == str(log.right) != str(log.outcome())


def test_one_error_is_decisive_by_brute_force_and_the_others_do_no_harm() -> None:
    for log in SOME:
        flips = []
        for at in range(TURNS):
            lines = [str(log.plan[i]) if i == at else as_python(turn) for i, turn in enumerate(log.turns)]
            flips.append(run(log, lines) == str(log.right))
        assert sum(flips) == 1 and log.decisive == flips.index(True) and log.decisive in log.errors
        assert len(log.errors) in range(ERRORS[0], ERRORS[1] + 1)


def test_replay_attributes_every_log_as_brute_force_does() -> None:
    for log in SOME:
        found = verify.replayed(log)
        assert (found.step, found.agent) == (log.decisive, log.turns[log.decisive or 0].agent)
        assert [s.step for s in found.suspects] == [at for at in log.errors if at <= (log.decisive or 0)]
        assert found.calls == 0 and found.cost.tokens == 0


def test_a_suspect_says_what_would_have_been_left() -> None:
    for log in SOME[:50]:
        for suspect in by_replay(log):
            done = [as_python(turn) for turn in log.turns[: suspect.step]]
            for after, line in enumerate(("", *map(str, suspect.instructions))):
                done += [line] if line else []
                left = [run(AgentLog(log.start, log.plan, name, log.turns), done) for name in "abc"]
                assert left == list(map(str, suspect.registers[after]))
            assert suspect.correction == log.plan[suspect.step] and suspect.cause in CAUSES


def test_another_predictor_decides_where_the_search_ends() -> None:
    log = next(log for log in SOME if log.decisive != log.errors[0])
    hasty = by_replay(log, lambda log, step, correction: (executed(log, step, correction)[0], True))
    assert [s.step for s in hasty] == [log.errors[0]]


def test_what_is_written_is_read_again() -> None:
    for log in SOME[:100]:
        assert AgentLog.read(log.prompt()) == log
        assert read(log, scaffold(log)) == by_replay(log)
        assert attributed(scaffold(log)) + "." == verdict(log)  # type: ignore[operator]
    assert read(SOME[0], "9t123;a=b+c>123& 1t123;a=bb+c>123& 1r123;a=b+c>123& 1t123;a=b+c>12&") == ()
    for text in ("", "V12>a3:?", SOME[0].prompt().replace("0", "", 1), "x" * 40):
        with pytest.raises(UsageError, match="is no log"):
            AgentLog.read(text)
    with pytest.raises(ValueError):
        instruction("e=a+b")


def test_both_arms_see_numbered_steps_and_one_writes_before_it_answers() -> None:
    for log in SOME[:50]:
        asked, text = attribution.target("a2p", log)
        assert attribution.target("direct", log) == (asked, verdict(log))
        assert (
            text.endswith(verdict(log)) and re.match(r"\d[tos]\d{3};", text) and len(asked + text) < attribution.CONTEXT
        )


def test_a_warming_turn_is_what_the_turn_does() -> None:
    from random import Random

    for seed in range(100):
        asked, left = attribution.turn(Random(seed))
        before, line = asked[:-1].split(";")
        start = tuple(map(int, before))
        assert [run(AgentLog(start, (), name, ()), [line]) for name in "abc"] == list(left[:-1])


def test_splits_share_no_plan_and_tasks_score_the_step() -> None:
    plans = {split: {(log.start, log.plan) for log in islice(logs(split), 200)} for split in ("train", "dev", "test")}
    assert all(not plans[a] & plans[b] for a, b in product(plans, plans) if a != b)
    task = tasks.load("agent-logs", 3)[2]
    assert task.score(f"thinking...\n{task.reference}.") == 1.0 == task.score(scaffold(task.meta["log"]))
    wrong = str((int(task.reference[1]) + 1) % TURNS)
    assert task.score(f"#{wrong}C.") == 0.0 and task.score("no idea") == 0.0
    assert "Step 4 - " in task.meta["question"]


@pytest.fixture(scope="module")
def tiny() -> Engine:
    """Hardly trained: it writes something, which may be no attribution."""
    from anystep.language.engine.tokenizer import Alphabet as Symbols
    from anystep.tasks.chains import Alphabet

    recipe = attribution.AttributionRecipe(logs=200, tokens=8_000, warm=1_000)
    model, cost = attribution.train(recipe, lambda line: None)
    assert cost.tokens >= 8_000
    return Engine(model, Symbols(Alphabet().symbols), name="tiny")


def test_a_model_attributes_in_one_call_a_log_and_is_paid_for(tiny: Engine) -> None:
    def make(log: AgentLog) -> LanguageProcess:
        return LanguageProcess(tiny, log.prompt(), unit="completion", stop=".", max_tokens=40, temperature=0)

    found = verify.abduct_act_predict(SOME[:4], make)
    for log, one in zip(SOME, found, strict=False):
        assert one.calls == 1 and one.cost.prompt == len(log.prompt()) and 0 < one.cost.generated <= 40
        assert one.suspects == read(log, one.text)
        assert (one.step is None) == (attributed(one.text) is None)
    tiny.cache.trim(0)
    cut = verify.abduct_act_predict(SOME[:1], make, Budget(tokens=len(SOME[0].prompt()) + 2))[0]
    assert cut.step is None and cut.cost.generated <= 2


def test_a_tuned_model_is_kept(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    recipe = attribution.AttributionRecipe(logs=50, tokens=2_000, warm=0)
    card = attribution.tuned(recipe, lambda line: None)
    assert attribution.tuned(recipe) == card and load(card).config.context == attribution.CONTEXT
