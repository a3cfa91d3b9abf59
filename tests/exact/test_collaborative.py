"""Collaborative verification: a verifier's losses and scores, what a program finds, and what all of it costs."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from anystep import Budget, Cost, Ledger, Limit, Run, sandbox, search
from anystep.drive import drive
from anystep.errors import UsageError
from anystep.experiments import _collaboration as pools
from anystep.language import LanguageProcess
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Llama
from anystep.language.engine.tokenizer import Alphabet
from anystep.language.states import Sequences
from anystep.language.train.chainlm import untrained
from anystep.language.train.grove import plant
from anystep.language.train.reasoners import BASE, config, slipped, translate_prompt, translation
from anystep.language.train.verifiers import LOSSES, Training, Verifier, graded, loss_of
from anystep.ledger import JointLimit
from anystep.sandbox import Outcome
from anystep.tasks.quantities import Quantities, alphabet, chain_of, judge, plan, problems
from anystep.testing import check_reward
from anystep.testing.counting import Work, counted, counted_torch
from anystep.verify.collaborative_cot_pot import (
    Agreement,
    CollaborativeCotPot,
    agreement,
    agrees,
    code,
    collaborative_cot_pot,
    in_sandbox,
    ranker,
)

PROBLEM = "Ca 36,b 17 more a,c 3 times b,all?"
RIGHT = "36+17=53\n53*3=159\n36+53=89\n89+159=248."
SLIP = "36+17=54\n54*3=162\n36+54=90\n90+162=252."
MISREAD = "36+17=53\n36*3=108\n36+53=89\n89+108=197."


def some(n: int, seed: int = 0) -> list[Quantities]:
    return list(islice(problems("train", Random(seed)), n))


class Arithmetic:
    """A runner for tests: what the programs print, by the test's own arithmetic, and how many were run."""

    def forward(self, programs: Sequence[str]) -> list[str | None]:
        return [self._one(program) for program in programs]

    def _one(self, program: str) -> str | None:
        names: dict[str, float] = {}
        try:
            for line in program.split("\n")[:-1]:
                name, _, value = line.partition("=")
                sign = next(s for s in "+-*/" if s in value)
                a, b = (float(names.get(x, x)) for x in value.split(sign))
                names[name] = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else math.nan}[sign]
        except (ValueError, StopIteration):
            return None
        return str(names[program[-2]])

    def __call__(self, programs: Sequence[str]) -> list[str | None]:
        return self.forward(programs)


class Exact(Agreement):
    """An agreement whose translator is the rule that the taught one learns."""

    def translated(self, chains: Sequence[str], rows: Any, limit: Limit) -> list[str | None]:
        return [translation(chain)[1] for chain in chains]


def model(seed: int, scale: float = 6.0) -> Llama:
    """Untrained, and far enough from uniform that texts have different scores."""
    made = untrained(config("half"), seed).requires_grad_(False).eval()
    for name, parameter in made.named_parameters():
        if "embed" in name:
            parameter.mul_(scale)
    return made


def engine(seed: int) -> Engine:
    return Engine(model(seed), Alphabet(alphabet().symbols), name=f"random-{seed}")


def judged(loss: str, seed: int = 0) -> Verifier:
    torch.manual_seed(seed)
    made = Verifier(config("half"), alphabet(), loss)  # type: ignore[arg-type]
    made.trunk.load_state_dict(model(seed).state_dict())
    torch.nn.init.normal_(made.head.weight, std=0.02)
    return made.requires_grad_(False).eval()


def reward(loss: str = "outcome", rest: float = 0.5) -> CollaborativeCotPot:
    return CollaborativeCotPot(agreement(engine(1), Arithmetic()), ranker(judged(loss), f"random {loss}"), rest)


def states(*pairs: tuple[str, str]) -> Sequences:
    encode = alphabet().encode
    return Sequences(
        tuple((*encode(p), *encode(t)) for p, t in pairs),
        tuple(len(p) for p, _ in pairs),
        Alphabet(alphabet().symbols),
    )


PAIRS = states((PROBLEM, RIGHT), (PROBLEM, SLIP), (PROBLEM, "36+17=53\n53*"), (PROBLEM, MISREAD))

OTHERS = ["2*3=6\n6+9=15.", "9-4=4\n4+", "24/3=8\n8-5=3\n8+3=11."]  # chains and prompts that begin in their own ways
APART = states((PROBLEM, RIGHT), *((f"P{q}", chain) for q, chain in zip(some(3), OTHERS, strict=True)))


def limit() -> Limit:
    return Limit(Ledger(), "test")


# --- the verifier


@pytest.mark.parametrize("loss", LOSSES)
def test_a_verifier_scores_a_chain_alike_alone_in_a_grove_and_in_the_engine(loss: str) -> None:
    verifier, chains = judged(loss), [RIGHT, SLIP, MISREAD]
    found = verifier.scores([PROBLEM, PROBLEM], [chains, [SLIP, SLIP]])
    assert found[1][0] == found[1][1] == pytest.approx(found[0][1], rel=1e-4)
    alone = [verifier.scores([PROBLEM], [[chain]])[0][0] for chain in chains]
    served = ranker(verifier, loss)(states(*((PROBLEM, c) for c in chains)), limit()).values
    tokens = [alphabet().encode(PROBLEM + c) for c in chains]
    read = [verifier.read(verifier.trunk(torch.tensor([t]))[0], t, len(PROBLEM)) for t in tokens]
    for other in (alone, served, read):
        assert np.allclose(found[0], other, rtol=1e-4)
    assert len({round(v, 6) for v in read}) == 3 and all(0 < v < 1 for v in read)


def test_the_preference_score_is_the_mean_log_probability_of_the_chain_s_tokens() -> None:
    verifier = judged("preference")
    tokens = alphabet().encode(PROBLEM + RIGHT)
    logs = verifier.trunk.logits(verifier.trunk(torch.tensor([tokens])))[0].log_softmax(-1)
    own = [float(logs[i - 1, tokens[i]]) for i in range(len(PROBLEM), len(tokens))]
    assert verifier.scores([PROBLEM], [[RIGHT]])[0][0] == pytest.approx(math.exp(np.mean(own)), rel=1e-4)


def test_simpo_s_loss_is_the_paper_s_formula_over_pairs_of_one_problem() -> None:
    verifier, training = judged("preference"), Training("preference", ("A",), beta=2.5, gamma=0.8, writer=0.0)
    groups = [graded(PROBLEM, [RIGHT, SLIP, MISREAD], [True, False, False])]
    groups += [graded("Ca 9,b 2 more a,c 3 more b,c?", ["9+2=11.", "9+5=14."], [False, True])]
    scores = [dict(zip(g.chains, np.log(verifier.scores([g.prompt], [g.chains])[0]), strict=True)) for g in groups]
    gaps = [scores[0][RIGHT] - scores[0][SLIP], scores[0][RIGHT] - scores[0][MISREAD]]
    gaps.append(scores[1]["9+5=14."] - scores[1]["9+2=11."])
    expected = np.mean([math.log1p(math.exp(-(2.5 * gap - 0.8))) for gap in gaps])
    assert float(loss_of(verifier, plant(groups, alphabet()), training)) == pytest.approx(expected, rel=1e-4)


def test_the_outcome_s_loss_is_the_cross_entropy_with_less_weight_before_the_end() -> None:
    verifier, training = judged("outcome"), Training("outcome", ("A",), early=0.25, writer=0.5)
    group = graded(PROBLEM, [RIGHT], [True])
    tokens = alphabet().encode(PROBLEM + RIGHT)
    hidden = verifier.trunk(torch.tensor([tokens]))[0]
    logs = verifier.trunk.logits(hidden).log_softmax(-1)
    own = [float(logs[i - 1, tokens[i]]) for i in range(len(PROBLEM), len(tokens))]
    ends = [i for i in range(len(PROBLEM), len(tokens)) if alphabet().decode([tokens[i]]) in "\n."]
    logits = {}
    for end in ends:
        so_far = own[: end + 1 - len(PROBLEM)]
        logits[end] = verifier.logits(hidden[end], torch.tensor(sum(so_far)), torch.tensor(float(len(so_far))))
    losses = [float(-torch.nn.functional.logsigmoid(logits[i])) for i in ends]
    expected = (0.25 * sum(losses[:-1]) + losses[-1]) / (0.25 * 3 + 1) - 0.5 * float(np.mean(own))
    assert float(loss_of(verifier, plant([group], alphabet()), training)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_either_loss_teaches_right_above_wrong(loss: str) -> None:
    training = Training(loss, ("A",))  # type: ignore[arg-type]
    verifier = judged(loss).requires_grad_(True)
    grove = plant([graded(PROBLEM, [RIGHT, MISREAD], [True, False])], alphabet())
    optimiser = torch.optim.Adam(verifier.parameters(), 1e-3)
    for _ in range(12):
        optimiser.zero_grad()
        loss_of(verifier, grove, training).backward()
        optimiser.step()
    right, wrong = verifier.scores([PROBLEM], [[RIGHT, MISREAD]])[0]
    assert right > wrong


def test_an_unknown_loss_is_refused() -> None:
    from anystep.language.train.verifiers import train

    with pytest.raises(UsageError, match="one of preference, outcome"):
        train(Training("dpo", ("A",)), groups=[])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="both right and wrong"):
        train(Training("outcome", ("A",)), groups=[])


# --- the program


def test_with_an_exact_translator_a_chain_agrees_just_where_its_last_value_is_its_plan_s() -> None:
    rng, passed = Random(1), {True: 0, False: 0}
    checker = Exact(runner=Arithmetic())
    for problem in some(300, 2):
        chain = slipped(plan(problem), rng)
        found = judge(f"C{problem}", chain)
        agreed = checker(states((f"C{problem}", chain)), limit()).values[0]
        if found.holds:
            assert agreed == 1.0
        if found.planned:  # its plan followed without slips comes to the right answer
            assert agreed == float(found.right)
        passed[bool(agreed)] += 1
    assert min(passed.values()) > 50


def test_a_wrong_plan_passes_and_a_slip_does_not_and_partial_chains_are_checked_so_far() -> None:
    checker = Exact(runner=Arithmetic())
    some_states = states(
        (PROBLEM, RIGHT),
        (PROBLEM, MISREAD),
        (PROBLEM, SLIP),
        (PROBLEM, "36+17=53\n5"),
        (PROBLEM, "36+17=54\n5"),
        (PROBLEM, "3"),
    )
    assert checker(some_states, limit()).values.tolist() == [1.0, 1.0, 0.0, 1.0, 0.0, 0.5]


def test_a_program_that_could_not_be_run_is_no_verdict_and_is_tried_again() -> None:
    class Down(Arithmetic):
        down = True

        def forward(self, programs: Sequence[str]) -> list[Any]:
            return [math.nan for _ in programs] if self.down else super().forward(programs)

    runner = Down()
    checker, some_states = Exact(runner=runner), states((PROBLEM, RIGHT), (PROBLEM, SLIP))
    assert np.isnan(checker(some_states, limit()).values).all()
    runner.down = False
    assert checker(some_states, limit()).values.tolist() == [1.0, 0.0]


def test_what_the_sandbox_lost_was_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost:
        def run(self, programs: list[str]) -> list[Outcome]:
            return [Outcome("killed", detail="its worker was lost") for _ in programs]

    monkeypatch.setattr(sandbox, "shared", Lost)
    assert all(isinstance(said, float) for said in in_sandbox(["x=1+2\nprint(x)", "print(3)"]))


def test_a_run_that_cannot_pay_takes_no_verdict_from_one_that_can() -> None:
    poor, rich = Limit(Ledger(Budget(calls=1), reserve=0.0), "test"), limit()
    poor.charge(Cost(calls=1))
    twice = states((PROBLEM, RIGHT), (PROBLEM, RIGHT))
    assert Exact(runner=Arithmetic())(twice, JointLimit([poor, rich], [1, 1])).values[1] == 1.0


def test_what_a_program_is_and_what_agrees() -> None:
    assert code("x=1+2\ny=x*3.") == "x=1+2\ny=x*3\nprint(y)"
    assert code("x=1+2") is None and code("1+2.") is None and code("") is None
    assert agrees("1+2=3.", "3.0\n") and agrees("1+2=3\n", "3") and not agrees("1+2=3.", "3.5")
    assert (
        not agrees("1+2=3.", None) and not agrees("3.", "3") and not agrees("1+2=3.", "nan") and not agrees("1=3.", "x")
    )


def test_programs_run_in_the_sandbox_and_hostile_ones_say_nothing() -> None:
    plain = ["x=1+2\nprint(x)", "x=7/0\nprint(x)", "x=1+2\ny=x*3\nprint(y)", "x=1+y\nprint(x)"]
    odd = ["print(open('/etc/passwd').read())", "import os\nos._exit(0)", "print(6*7)", "x=", "while 1: print(1)"]
    said = in_sandbox([*plain, *odd])
    assert said[:4] == ["3", None, "9", None]
    assert [said[4], said[5], said[7], said[8]] == [None] * 4 and str(said[6]).strip() == "42"
    assert in_sandbox([]) == []


# --- the reward


@contextmanager
def work_of(made: CollaborativeCotPot) -> Any:
    """What all three parts do: passes of both models, and programs run."""
    total = Work()
    with ExitStack() as stack:
        parts = [stack.enter_context(counted_torch(made.ranker.engine.model))]
        parts.append(stack.enter_context(counted_torch(made.agreement.translator.model)))
        programs = stack.enter_context(counted(made.agreement.runner))

        class Sum(Work):
            def __getattribute__(self, name: str) -> Any:
                if name == "evaluations":
                    return sum(part.evaluations for part in parts)
                if name == "calls":
                    return sum(part.calls for part in parts) + programs.evaluations
                return super().__getattribute__(name)

        total = Sum()
        yield total


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("rest", [0.5, 0.0])
def test_the_reward_keeps_the_contract_and_so_do_its_parts(
    loss: str, rest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["anystep.verify.collaborative_cot_pot"]  # whose name in its package is the factory's
    monkeypatch.setattr(module, "PROGRAM_TOKENS", 5)  # an untrained translator never ends
    made = reward(loss, rest)
    check_reward(made, APART, lambda: work_of(made))
    check_reward(made.log_odds(), APART, lambda: work_of(made))
    for part in (made.agreement, made.ranker):
        check_reward(part, APART, lambda: work_of(made))


def test_cold_it_pays_for_every_unit_before_it_and_stops_where_refused() -> None:
    full = reward()
    with work_of(full) as work:
        scored = full(PAIRS, paying := limit())
    assert (paying.used.evaluations, paying.used.calls) == (work.evaluations, work.calls) and scored.cost.same(
        paying.used
    )
    for tokens in range(1, paying.used.tokens + 40, 40):
        made = reward()
        ledger = Ledger(Budget(tokens=tokens), reserve=0.0)
        with work_of(made) as work:
            part = made(PAIRS, Limit(ledger, "test"))
        assert ledger.spent.tokens <= tokens and work.evaluations == ledger.spent.evaluations
        known = ~np.isnan(part.values)
        assert np.allclose(part.values[known], scored.values[known], rtol=1e-4)
    assert known.all()
    made = reward()
    assert made(states((PROBLEM, ""), (PROBLEM, "36+1")), paying := limit()).values.tolist() == [0.5, 0.5]
    assert paying.used.same(Cost())


def test_the_best_of_n_is_the_ranker_s_choice_among_those_that_agree_and_among_all_where_none_does() -> None:
    exact, by = Exact(runner=Arithmetic()), ranker(judged("outcome"), "random")
    made = CollaborativeCotPot(exact, by)
    for chains in ([RIGHT, SLIP, MISREAD], [SLIP, SLIP.replace("252", "253")], [MISREAD, SLIP, RIGHT]):
        shown = states(*((PROBLEM, chain) for chain in chains))
        values, ranks = made(shown, limit()).values, by(shown, limit()).values
        kept = [i for i, chain in enumerate(chains) if chain != SLIP and "253" not in chain] or range(len(chains))
        assert int(np.argmax(values)) == max(kept, key=lambda i: ranks[i])
    weights = CollaborativeCotPot(exact, by, rest=0.0)(states((PROBLEM, RIGHT), (PROBLEM, SLIP)), limit()).values
    assert weights[0] == pytest.approx(by(states((PROBLEM, RIGHT)), limit()).values[0]) and weights[1] == 0.0


@pytest.mark.parametrize(
    "method",
    [
        lambda r: search.best_of_n(n=4, reward=r),
        lambda r: search.best_of_n(n=4, reward=r).deciding(search.reward_majority),
        lambda r: search.beam(width=2, branch=2, reward=r),
        lambda r: search.particle_filter(n=4, potential=r.log_odds()),
    ],
)
def test_every_procedure_can_use_it(method: Any) -> None:
    even = Engine(model(3, scale=1.0), Alphabet(alphabet().symbols), name="even")  # each character about as likely
    process = LanguageProcess(even, PROBLEM, stop="\n", max_tokens=40, chat=False)
    run = Run(process, method(reward()), None, seed=1)
    drive(run)
    assert run.answer is not None and run.answer.row is not None
    assert run.ledger.by["collaborative_cot_pot"].tokens > 0


def test_a_rest_that_leaves_nothing_to_those_who_agree_is_refused() -> None:
    for rest in (1.0, -0.1):
        with pytest.raises(UsageError, match="a share such as 0.5"):
            collaborative_cot_pot(rest=rest)


# --- what the experiment counts


def test_an_arm_s_tokens_are_those_that_the_reward_pays() -> None:
    made, chains = reward(), [RIGHT, SLIP, RIGHT, MISREAD, "36+17=53"]
    (problem,) = [p for p in some(1)]
    pool = pools.Pool(problem, tuple(chains), 0.0)
    pools.checked([pool], model(1), Arithmetic())
    shown = states(*((pool.prompt, chain) for i, chain in enumerate(chains) if i in pool.done(5)))
    paid = {}
    for name, part in (("rank", made.ranker), ("translate", made.agreement)):
        paying = limit()
        part(shown, paying)
        paid[name] = paying.used.tokens
    drawn = len(pool.prompt) + sum(map(len, chains))
    assert pools.tokens(pool, 5, False, False) == drawn
    assert pools.tokens(pool, 5, True, False) == drawn + paid["rank"]
    assert pools.tokens(pool, 5, False, True) == drawn + paid["translate"]
    assert pools.tokens(pool, 5, True, True) == drawn + paid["rank"] + paid["translate"]
    assert (
        pool.agree.tolist()[:4]
        == made.agreement(states(*((pool.prompt, c) for c in chains[:4])), limit()).values.tolist()
    )


def test_arms_choose_and_vote_as_they_say() -> None:
    problem = some(1, 7)[0]
    right = chain_of(plan(problem))
    wrong = right[: right.rindex("=")] + "=1."
    pool = pools.Pool(problem, (wrong, wrong, right, "1+1"), 0.0)
    pool.agree, pool.scores["v"] = np.array([0.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.2, 0.3, 1.0])
    assert pools.chosen(pool, 4, pool.scores["v"]) == 0.0 and pools.chosen(pool, 4, pools.gated(pool, "v")) == 1.0
    assert pools.voted(pool, 4, np.ones(4)) == 0.0 and pools.voted(pool, 4, pool.agree) == 1.0
    assert pools.voted(pool, 2, pool.agree) == 0.0  # none agrees: all vote
    assert pools.chosen(pool, 0, pool.scores["v"]) == 0.0
    assert pools.positions(["b" + "a" * 40, "c" + "a" * 40]) == 82 and pools.positions(["a" * 40 + "b", "a" * 41]) == 42
    assert pools.positions([]) == 0
    assert translate_prompt("1+1=2\n3+") == "V1+1=2?" and BASE.start is None
