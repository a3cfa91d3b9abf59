"""Speculation against plain decoding: the same tokens, or the same law, in fewer passes; and what drafting may cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from anystep import Budget, keys, search
from anystep.drive import drive
from anystep.errors import UsageError
from anystep.language import LanguageProcess
from anystep.language.accelerate import (
    Draft,
    Drafter,
    Drafting,
    DraftModel,
    EarlyLayers,
    Follow,
    PromptLookup,
    Reject,
    Thrift,
    TrieLookahead,
    Verifier,
    speculate,
    trie_lookahead,
)
from anystep.language.accelerate.verify import Verdict, tried
from anystep.language.engine.engine import Engine
from anystep.language.engine.sampling import distribution
from anystep.language.engine.tokenizer import Alphabet
from anystep.language.engine.trees import Tree
from anystep.ledger import Ledger, Limit
from anystep.process import Status, reward
from anystep.run import Run
from anystep.testing import assert_law
from models import SYMBOLS, tiny_engine, tiny_model

PROMPT = "Hello: 12+34=12+34="
KINDS = {
    "greedy": {"unit": "completion", "temperature": 0, "max_tokens": 40},
    "sampled": {"unit": "completion", "max_tokens": 40},
    "nucleus": {"unit": "completion", "temperature": 0.6, "top_p": 0.8, "max_tokens": 40},
    "steps": {"unit": "step", "stop": "a", "end": ("b", "cd"), "at_cap": "failed", "max_tokens": 40},
    "tokens": {"unit": "token", "max_tokens": 6},
}


@dataclass(eq=False)
class Told(Drafter):
    """Guesses what plain decoding says, given beforehand, spoilt at every `wrong`-th position, beside a random tree."""

    outputs: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    wrong: int = 7
    width: int = 2
    name = "told"

    def begin(self, job):
        return Telling(self, job)


class Telling(Drafting):
    def __init__(self, drafter, job):
        self.drafter, self.job = drafter, job

    def draft(self, wants):
        found = {}
        for row, want in wants.items():
            at, key = len(self.job.tokens[row]), int(self.job.keys[row])
            rng = np.random.default_rng([key, at])
            ahead = self.drafter.outputs.get(key, ())[at : at + want.depth]
            ahead = [3 if (at + i) % self.drafter.wrong == 0 else token for i, token in enumerate(ahead)]
            junk = [rng.integers(3, 64, rng.integers(1, 4)).tolist() for _ in range(self.drafter.width)]
            tree = Tree.of([junk[0], ahead, *junk[1:]] if self.drafter.width else [ahead])
            found[row] = Draft(tree)
        return found


def steps(process, n=5, until="step", seed=0, turns=50):
    """What a run's states become, step by step, with all that was replied."""
    limit, own = Limit(Ledger(), "test"), keys.roots(seed, (), np.arange(n))
    states, found = process.start(own, limit).states, []
    for _ in range(turns):
        reply = process.step(states, own, limit, until)
        found.append(reply)
        live = np.flatnonzero(reply.status == Status.LIVE)
        if not len(live) or until != "step":
            break
        states, own = reply.states.take(live), keys.children(own[live], 1, 0)
    return found, limit.used


def outputs(process, n=5):
    """Plain decoding's tokens by key, for one call of `step`."""
    own = keys.roots(0, (), np.arange(n))
    reply = process.step(process.start(own, Limit(Ledger(), "t")).states, own, Limit(Ledger(), "t"), "done")
    return dict(zip(own.tolist(), reply.states.tokens, strict=True))


def drafters(engine, plain):
    other = tiny_model(0, scale=0.15)
    torch.manual_seed(5)
    for parameter in other.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.01)
    small = Engine(other, Alphabet(SYMBOLS), name="other")
    return {
        "told": Told(outputs(plain)),
        "wrong": Told(width=3),
        "lookup": PromptLookup(),
        "trie": TrieLookahead(),
        "one branch": TrieLookahead(mode="one", remember=False),
        "model": DraftModel(small, level=0.1),
        "wide model": DraftModel(small, width=3, level=0.1),
        "early layer": EarlyLayers(1),
    }


@pytest.mark.parametrize("fixed", [None, 6], ids=["thrifty", "fixed"])
@pytest.mark.parametrize("kind", KINDS)
def test_following_is_plain_decoding_token_for_token(kind, fixed):
    engine = tiny_engine(scale=0.15)
    plain = LanguageProcess(engine, PROMPT, **KINDS[kind])
    for name, drafter in drafters(engine, plain).items():
        fast = speculate(plain, drafter, thrift=Thrift(fixed=fixed))
        for until in ("step", "done", 2) if name in ("told", "model") else ("done",):
            for one, other in zip(steps(plain, until=until)[0], steps(fast, until=until)[0], strict=True):
                assert one.states == other.states, (name, until)
                assert (one.status == other.status).all() and (one.cut == other.cut).all(), (name, until)
                assert one.errors == other.errors
                assert np.allclose(one.logp, other.logp, atol=1e-4)
        assert fast.rounds.tokens >= fast.rounds.looks


def test_good_guesses_save_passes_and_are_charged_as_they_are():
    engine = tiny_engine(scale=0.15)
    plain = LanguageProcess(engine, PROMPT, **KINDS["sampled"])
    fast = speculate(plain, Told(outputs(plain), wrong=1000, width=0))
    engine.cache.trim(0)
    slow = steps(plain, until="done")[1]
    engine.cache.trim(0)
    passes, positions = engine.counters.passes, engine.counters.positions
    quick = steps(fast, until="done")[1]
    assert quick.calls == engine.counters.passes - passes <= slow.calls / 3
    assert quick.evaluations == engine.counters.positions - positions
    assert (quick.generated, quick.prompt) == (slow.generated, slow.prompt)
    assert quick.evaluations <= slow.evaluations + 5 * 8  # guesses past each row's end


def test_early_layers_are_run_once_and_charged_as_they_are():
    engine = tiny_engine(scale=0.15, layers=4)
    for layer in engine.model.layers[1:]:
        for parameter in layer.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.4)  # the first layer has most of the say, as where early exits were trained
    plain = LanguageProcess(engine, PROMPT, **KINDS["greedy"])
    fast = speculate(plain, EarlyLayers(1), thrift=Thrift(slope=0.02))
    engine.cache.trim(0)
    slow = steps(plain, n=1, until="done")
    engine.cache.trim(0)
    passes, positions = engine.counters.passes, engine.counters.positions
    quick = steps(fast, n=1, until="done")
    assert quick[0][0].states == slow[0][0].states
    assert quick[1].calls == engine.counters.passes - passes
    assert quick[1].evaluations == engine.counters.positions - positions
    shown, looks = fast.rounds.shown, fast.rounds.looks
    assert fast.rounds.accepted > 20 and looks < slow[1].calls
    prompt = engine.flops(19, 19 * 20 // 2, 1)
    heads = (quick[1].flops - prompt - engine.flops(quick[1].evaluations - 19, quick[1].attended - 190, 0)) / (
        engine.flops(0, 0, 1)
    )
    begun = heads - (looks - 1 + shown)  # of every position the last head; the rest are guesses
    assert begun == pytest.approx(round(begun)) and shown <= begun <= shown + looks


@pytest.mark.parametrize("tokens", [30, 61, 90])
def test_a_token_budget_buys_the_same_text(tokens):
    engine = tiny_engine(scale=0.15)
    plain = LanguageProcess(engine, PROMPT, **KINDS["sampled"])
    for process in (plain, speculate(plain, Told(outputs(plain)))):
        engine.cache.trim(0)
        account = Limit(Ledger(Budget(tokens=tokens), reserve=0.0), "test")
        own = keys.roots(0, (), np.arange(5))
        reply = process.step(process.start(own, account).states, own, account, "done")
        assert account.used.tokens <= tokens and reply.cut.any()
        if process is plain:
            want = reply
    assert want.states == reply.states and (want.cut == reply.cut).all()


@pytest.mark.parametrize(
    "method",
    [
        search.best_of_n(n=4, reward=reward(lambda s: np.array([t.count("a") for t in s.texts()]), name="as")),
        search.first_finish(n=4),
        search.beam(
            width=2, branch=2, reward=reward(lambda s: np.array([len(set(t)) for t in s.texts()]), name="kinds")
        ),
    ],
    ids=lambda method: method.explorer.name if hasattr(method, "explorer") else "method",
)
def test_search_over_it_finds_what_search_over_the_plain_one_finds(method):
    engine = tiny_engine(scale=0.15)
    plain = LanguageProcess(engine, PROMPT, **KINDS["steps"] | {"at_cap": "done"})
    (one,) = drive(Run(plain, method, seed=3))
    (other,) = drive(Run(speculate(plain, TrieLookahead()), method, seed=3))
    assert one.text == other.text and one.population.states == other.population.states


def test_what_is_shown_with_log_probabilities_is_what_plain_decoding_shows():
    engine = tiny_engine(scale=0.15)
    plain = LanguageProcess(engine, PROMPT, logprobs=3, **KINDS["sampled"])
    heard = []
    for process in (plain, speculate(plain, Told(outputs(plain)))):
        pieces = {}
        ledger = Ledger(show=lambda key, piece, pieces=pieces: pieces.setdefault(key, []).append(piece))
        own = keys.roots(0, (), np.arange(5))
        account = Limit(ledger, "test")
        process.step(process.start(own, account).states, own, account, "done")
        heard.append(pieces)
    assert heard[0] == heard[1]
    for key, pieces in heard[0].items():
        for one, other in zip(pieces, heard[1][key], strict=True):
            assert one.token == other.token and abs(one.logp - other.logp) < 1e-4
            assert [t for t, _ in one.top] == [t for t, _ in other.top]


# --- the law of rejection ---


def law_of_trials(p, q, width):
    """The token's exact law when `tried` decides over `width` guesses from q without replacement: each guess's chance
    of acceptance is found by bisection over its uniform."""
    law, sure = np.zeros(len(p)), 1.0 - 1e-15

    def accepts(guesses, u):
        return tried(p, q, guesses, np.array([sure] * (len(guesses) - 1) + [u]))[0] == len(guesses) - 1

    def threshold(guesses):
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if accepts(guesses, middle) else (low, middle)
        return low

    def go(guesses, left, mass):
        if len(guesses) == width or not left.sum() > 0:
            law[:] += mass * tried(p, q, guesses, np.full(len(guesses), sure))[1]
            return
        for token in np.flatnonzero(left):
            chance = mass * left[token] / left.sum()
            taken = threshold([*guesses, token])
            law[token] += chance * taken
            rest = left.copy()
            rest[token] = 0.0
            if taken < 1 - 1e-12:
                go([*guesses, token], rest, chance * (1 - taken))

    go([], q.astype(float), 1.0)
    return law


@pytest.mark.parametrize("width", [1, 2, 3])
def test_rejection_has_the_models_law_exactly(width):
    rng = np.random.default_rng(width)
    for _ in range(5):
        p, q = rng.dirichlet(np.full(4, 0.5)), rng.dirichlet(np.full(4, 0.5))
        p[rng.integers(4)] = 0.0
        p /= p.sum()
        assert np.abs(law_of_trials(p, q, width) - p).max() < 1e-9


@pytest.mark.parametrize("chosen", [(0,), (2, 0), (3, 1, 2)])
def test_guesses_that_were_chosen_leave_the_law_alone(chosen):
    p = np.array([0.5, 0.1, 0.4, 0.0])
    law, missed = np.zeros(4), 1.0
    for i, token in enumerate(chosen):
        left = tried(p, None, chosen[:i], np.full(i, 1 - 1e-12))[1]
        law[token] += missed * left[token]
        missed *= 1 - left[token]
    if missed > 1e-12:
        law += missed * tried(p, None, chosen, np.full(len(chosen), 1 - 1e-12))[1]
    assert np.allclose(law, p)


def enumerable(length=3):
    """A process over six symbols, the exact law of its outputs, and a smaller model that half agrees."""
    engines = []
    for seed in (0, 1):
        model = tiny_model(seed, scale=0.25, vocab=6)
        engines.append(Engine(model, Alphabet(SYMBOLS[2:8], end="?"), name=f"six-{seed}"))
    engine, small = engines
    plain = LanguageProcess(engine, "..", unit="completion", max_tokens=length, temperature=0.8, top_p=0.95)
    law: dict[tuple[int, ...], float] = {}

    def go(tokens, mass):
        if len(tokens) == length or (tokens and tokens[-1] in engine.tokenizer.ends):
            law[tokens] = mass
            return
        p = distribution(engine.forward(torch.tensor([(*plain.prompt, *tokens)]))[0, -1:], 0.8, 0.95)[0]
        for token in np.flatnonzero(p).tolist():
            go((*tokens, token), mass * p[token])

    go((), 1.0)
    return plain, law, small


@dataclass(frozen=True)
class Careless(Reject):
    """Draws from the model itself after a refusal, not from what the refusal leaves: a mistake."""

    def verify(self, places, temperature, top_p):
        found = []
        for place, verdict in zip(places, super().verify(places, temperature, top_p), strict=True):
            node = verdict.nodes[-1] + 1 if verdict.nodes else 0
            p = distribution(place.logits[node : node + 1], temperature, top_p)
            u = keys.uniforms(place.key, [place.position + len(verdict.nodes)])
            found.append(Verdict(verdict.nodes, int(keys.choose(p, u)[0]), verdict.logp))
        return found


def said(process, n=2_500, seed=0):
    reply = steps(process, n=n, until="done", seed=seed)[0][0]
    return reply.states.outputs(), reply.logp


@pytest.mark.parametrize("width, fixed", [(1, 2), (2, 4), (3, 6), (2, None)])
def test_rejecting_speculation_has_the_models_law(width, fixed):
    plain, law, small = enumerable()
    fast = speculate(
        plain, DraftModel(small, width=width, level=0.0), Reject(), Thrift(slope=0.01, crowd=1, fixed=fixed)
    )
    outputs, logp = said(fast)
    assert min(fast.rounds.accepted, fast.rounds.shown - fast.rounds.accepted) > 300
    assert_law(outputs, law)  # a false alarm has probability 1e-6
    assert np.allclose(logp, [np.log(law[tokens]) for tokens in outputs], atol=1e-4)


def test_the_law_test_sees_a_careless_verifier():
    plain, law, small = enumerable()
    outputs, _ = said(speculate(plain, DraftModel(small, level=0.0), Careless(), Thrift(fixed=2)))
    with pytest.raises(AssertionError, match="chi-square"):
        assert_law(outputs, law)


def test_chosen_guesses_under_rejection_have_the_models_law():
    plain, law, _ = enumerable()
    fast = speculate(plain, TrieLookahead(), Reject(), Thrift(fixed=3))
    said(fast, seed=1)  # what is remembered is guessed
    outputs, _ = said(fast)
    assert fast.rounds.accepted > 100
    assert_law(outputs, law)


# --- what drafting may cost ---


def priced(process, slope, rows):
    """What the target's passes of a completion take, by the straight line, over what plain decoding's would."""
    reply = steps(process, n=rows, until="done")[0][0]
    tokens = max(len(out) for out in reply.states.outputs())
    passes, positions = process.rounds.looks / rows, (process.rounds.looks + process.rounds.shown) / rows
    return ((1 - slope) * passes / rows + slope * positions) / (tokens * ((1 - slope) / rows + slope))


@pytest.mark.parametrize("slope, rows", [(0.02, 1), (0.1, 1), (0.3, 1), (0.1, 5), (1.0, 3)])
def test_bad_guesses_never_cost_a_tenth_more(slope, rows):
    engine = tiny_engine(scale=0.15)
    plain = LanguageProcess(engine, PROMPT, unit="completion", temperature=0, max_tokens=80)
    for wrong, width in ((1, 0), (1, 3), (2, 3), (20, 3)):
        drafter = Told(outputs(plain, rows), wrong=wrong, width=width)
        fast = speculate(plain, drafter, thrift=Thrift(slope=slope))
        ratio = priced(fast, slope, rows)
        assert ratio <= 1.1 + 1e-9, (wrong, width)
        if wrong == 20 and slope <= 0.1 and rows == 1:
            assert ratio < 0.6
    freely = speculate(plain, Told(outputs(plain, rows), wrong=1, width=3), thrift=Thrift(fixed=16))
    assert priced(freely, slope, rows) > 1.1  # what the books are for


def test_what_went_wrong_is_tried_again():
    engine = tiny_engine(scale=0.15)
    plain = LanguageProcess(engine, PROMPT, unit="completion", temperature=0, max_tokens=400)

    class Late(Telling):
        def draft(self, wants):
            found = super().draft(wants)
            late = {row for row in wants if len(self.job.tokens[row]) > 200}
            return {row: d if row in late else Draft(Tree((3,) * len(d), d.tree.parents)) for row, d in found.items()}

    drafter = Told(outputs(plain, 1), wrong=10_000, width=0)
    drafter.begin = lambda job: Late(drafter, job)  # useless for the first 180 tokens
    fast = speculate(plain, drafter)
    steps(fast, n=1, until="done")
    assert fast.rounds.looks < 180 + 120


@pytest.mark.parametrize("bad", [{"slope": -0.1}, {"slack": -1}, {"most": -1}, {"crowd": 0}, {"fixed": -2}])
def test_thrift_refuses_what_cannot_be_meant(bad):
    with pytest.raises(UsageError) as error:
        Thrift(**bad)
    assert "\n" not in str(error.value)


def test_what_cannot_speculate_is_refused_in_one_line():
    engine = tiny_engine()
    plain = LanguageProcess(engine, PROMPT)
    other = DraftModel(Engine(tiny_model(vocab=6), Alphabet(SYMBOLS[:6])))
    for attempt, line in (
        (lambda: speculate(speculate(plain, PromptLookup()), PromptLookup()), "takes a LanguageProcess"),
        (lambda: speculate(plain, "lookup"), "speculate\\(process"),
        (lambda: steps(speculate(plain, other), n=1), "another vocabulary"),
        (lambda: DraftModel(engine, width=0), "width=0"),
        (lambda: steps(speculate(plain, EarlyLayers(2)), n=1), "has 2 layers"),
        (lambda: PromptLookup(longest=0), "longest"),
        (lambda: TrieLookahead(branch=0), "branch"),
        (lambda: TrieLookahead(sources=("web",)), "sources"),
        (lambda: Draft(Tree.chain((5, 6)), chances=(0.5,)), "one a node"),
    ):
        with pytest.raises(UsageError, match=line) as error:
            attempt()
        assert "\n" not in str(error.value)


def test_it_prints_and_compares_as_what_it_is():
    engine = tiny_engine()
    plain = LanguageProcess(engine, PROMPT)
    assert trie_lookahead(plain, branch=7).drafter == TrieLookahead(branch=7)
    fast = speculate(plain, TrieLookahead(), Reject())
    assert "TrieLookahead(branch=12" in fast.settings() and "Reject()" in fast.settings()
    assert fast.merges() != plain.merges() and isinstance(Follow(), Verifier)
    assert speculate(plain, fast.drafter).merges() != fast.merges()
