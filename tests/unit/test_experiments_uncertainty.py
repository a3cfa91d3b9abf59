"""Row 41's experiment, small and on ChainLM: its checks measure what they name, and its rivals are what they say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anystep.experiments import Result
from anystep.experiments import uncertainty_head as row
from anystep.experiments._step_model import Read, StepModel, StepModelRecipe, lower, seen
from anystep.experiments._step_scores import Pool, Probe, columns, paired_auroc, planted, self_judged, surprises
from anystep.language import load
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Llama
from anystep.language.engine.tokenizer import Alphabet
from anystep.language.internals import Inside
from anystep.language.train.checkpoint import WEIGHTS
from anystep.language.train.figures import within_auroc
from anystep.language.train.uncertainty import load as read_head
from anystep.language.train.uncertainty_fit import CHAINLM, SMOLLM2, HeadRecipe, ModelRecipe, read, relative, trained
from anystep.language.train.worked import Chain, ChainsRecipe, chains_of, write
from anystep.tasks.chains import chains
from anystep.verify.uncertainty import head_for
from models import SYMBOLS, chain_engine, tiny_model

WHOLE = Inside(attention=2, probabilities=4, values=(1, 3), final=True)
RECIPE = HeadRecipe(Inside(values=(3,), final=True), hidden=16, heads=4, epochs=1)


def some(engine: Engine, family: str, n: int, each: int, split: str) -> list[Chain]:
    return write(engine, chains(n, families=family, split=split), each, temperature=1.0)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return chain_engine()


@pytest.fixture(scope="module")
def small(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Result]:
    tests = {family: some(engine, family, 3, 4, "test") for family in "CPL"}
    sets = row.Sets(
        some(engine, "C", 6, 2, "train") + some(engine, "P", 6, 2, "train"),
        some(engine, "C", 3, 3, "dev") + some(engine, "P", 3, 3, "dev"),
        tests,
        tests,
        "L",
        "1+1=2:1\n{step}:",
        ("1", "0"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANYSTEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        step = StepModelRecipe(upper=1, epochs=1)
        yield row.run(0, lambda line: None, engine, sets, RECIPE, WHOLE, step)


def test_it_has_a_check_for_every_clause_and_those_that_are_counts_pass(small: Result) -> None:
    assert small.row == 41 and Result.from_json(small.to_json()).name == "uncertainty_head"
    for family in ("C", "P", "L, unseen"):
        own = [c for c in small.checks if c.clause.startswith(f"{family}: AUROC")]
        bound = 0.0 if "unseen" in family else -0.05
        assert [c.bound for c in own] == [0.05, 0.05, bound]
        for words in ("token entropy", "perplexity", "step model"):
            assert sum(words in c.clause for c in own) == 1
    counts = [c for c in small.checks if "numbers of the model" in c.clause or "computed again" in c.clause]
    assert len(counts) == 2 and all(c.passed for c in counts)
    for words in ("parameters of the head", "FLOPs of judging", "trained families: accuracy", "L, unseen: accuracy"):
        assert sum(words in c.clause for c in small.checks) == 1


def test_its_notes_tell_every_rival_and_ablation(small: Result) -> None:
    for words in (
        *(
            "step model",
            "linear probe",
            "no encoder",
            "attention only",
            "probabilities only",
            "self-labels",
            "the head",
        ),
        *("ECE before temperature", "wrong passed", "Planted errors", "majority of", "oracle", "Processor time a step"),
    ):
        assert words in small.notes, words


def test_columns_of_the_whole_are_what_reading_the_part_gives(engine: Engine) -> None:
    written = some(engine, "C", 2, 2, "dev")
    whole = read(engine, written, WHOLE)
    for part in (Inside(attention=2), Inside(probabilities=4, final=True), Inside(values=(3,)), WHOLE):
        picked = columns(WHOLE, part, engine.config)
        for x, y in zip(whole, read(engine, written, part), strict=True):
            assert torch.allclose(x[:, picked], y, atol=2e-3)


def test_surprises_are_the_model_s_own(engine: Engine) -> None:
    written = some(engine, "C", 2, 1, "dev")
    final = read(engine, written, Inside(final=True))
    found = surprises(engine, final, written)
    chain = written[0]
    logs = engine.forward(torch.tensor([chain.tokens]))[0].log_softmax(-1)
    step = range(chain.start, chain.ends[0])
    own = [-float(logs[t - 1, chain.tokens[t]]) for t in step]
    entropy = [-float((logs[t - 1].exp() * logs[t - 1]).sum()) for t in step]
    assert found["perplexity, mean"][0] == pytest.approx(np.mean(own), abs=0.02)
    assert found["perplexity, greatest"][0] == pytest.approx(max(own), abs=0.02)
    assert found["token entropy, mean"][0] == pytest.approx(np.mean(entropy), abs=0.02)


def test_paired_areas_are_those_of_each_scorer_with_ties_half() -> None:
    rng = np.random.default_rng(0)
    ours, theirs, y = rng.integers(0, 5, 60), rng.normal(size=60), (rng.random(60) < 0.4).astype(float)
    gap = paired_auroc(ours, theirs, y, [str(i // 3) for i in range(60)])
    assert gap.value == pytest.approx(within_auroc(y, ours) - within_auroc(y, theirs))
    assert gap.low < gap.value < gap.high
    assert paired_auroc(theirs, theirs, y, [str(i) for i in range(60)]).value == 0


def test_the_probe_finds_a_direction_that_is_there() -> None:
    torch.manual_seed(0)
    written = [Chain(tuple(range(8)), 2, (5, 8), (i % 2 == 0, i % 3 == 0), str(i), 0.0) for i in range(60)]
    features = []
    for chain in written:
        x = torch.randn(6, 5)
        for k, label in enumerate(chain.labels):
            x[3 * k : 3 * k + 3, 2] += 3.0 * (not label)
        features.append(x)
    probe = Probe.fit(features[:40], written[:40], 1e-2)
    said = probe(features[40:], written[40:])
    y = np.array([not label for c in written[40:] for label in c.labels])
    assert within_auroc(y.astype(float), said) > 0.95


def test_a_pool_is_chosen_from_as_it_says() -> None:
    pool = Pool(np.array([0.0, 1.0, 0.0, 0.0]), ("7", "9", "7", None), {"x": np.array([0.1, 0.9, 0.9, 0.2])})
    assert pool.best("x") == 1.0 and pool.majority() == 0.0
    assert Pool(np.zeros(2), (None, None), {}).majority() == 0.0


def test_the_step_model_sees_the_question_and_its_own_chain_alone(engine: Engine) -> None:
    written = some(engine, "C", 1, 3, "train")
    assert isinstance(engine.model, Llama)
    torch.manual_seed(0)
    model = StepModel(engine.model, 2)
    torch.nn.init.normal_(model.head.weight)
    together = model(lower(engine, written, 3))
    alone = torch.cat([model(lower(engine, [chain], 3)) for chain in written])
    assert torch.allclose(together, alone, atol=1e-2)
    prompt = torch.tensor([written[0].tokens])
    hidden = model.base.norm(model.base.blocks(engine.model.embed(prompt)))[0]
    plain = model.head(hidden[[end - 1 for end in written[0].ends]])[:, 0]
    assert torch.allclose(alone[: len(plain)], plain, atol=1e-2)
    assert seen(torch.tensor([0, 1, 2, 2]))[3].tolist() == [True, False, True, True]


def test_the_step_model_learns_above_and_leaves_the_rest(engine: Engine) -> None:
    assert isinstance(engine.model, Llama)
    before = row.fingerprint(engine.model)
    model = StepModel(engine.model, 2)
    assert {n.split(".")[1] for n, _ in model.learned.named_parameters()} >= {"self_attn", "mlp"}
    with torch.no_grad():
        for parameter in model.learned.parameters():
            parameter += 1.0
    assert row.fingerprint(engine.model) == before
    assert isinstance(lower(engine, some(engine, "C", 1, 1, "train"), 3)[0], Read)


def test_its_own_judgement_asks_no_checker(engine: Engine) -> None:
    written = some(engine, "C", 3, 2, "train")
    blind = [replace(c, labels=(True,) * len(c.ends)) for c in written]
    ours = self_judged(engine, written, "{step}:", ("1", "0"))
    assert [c.labels for c in ours] == [c.labels for c in self_judged(engine, blind, "{step}:", ("1", "0"))]
    told = [label for c in ours for label in c.labels]
    assert abs(np.mean(told) - 0.5) < 0.2


def test_planted_errors_come_in_pairs_that_differ_in_one_result() -> None:
    engine = Engine(tiny_model(vocab=96), Alphabet("".join(dict.fromkeys(SYMBOLS + "QOPRSTUVWXYZ?'$&/#@%"))[:96]))
    for family in ("counts", "larger"):
        found = planted(engine, family, 4, 0)
        for right, false in zip(found[::2], found[1::2], strict=True):
            assert all(right.labels) and false.labels == (*right.labels[:-1], False)
            assert right.problem == false.problem and right.tokens[: right.start] == false.tokens[: false.start]
            assert relative([right])[0][:-1] == relative([false])[0][:-1]


def test_a_recipe_s_chains_and_head_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    from anystep.language import loading

    symbols = "".join(dict.fromkeys(SYMBOLS + "QOPRSTUVWXYZ?'$&/#@%"))[:96]
    made: list[str] = []

    def tiny(name: str, **options: object) -> Engine:
        made.append(name)
        return Engine(tiny_model(vocab=96), Alphabet(symbols), name="tiny")

    monkeypatch.setattr(loading, "load", tiny)
    train = ChainsRecipe("counts", 2, 2, model="tiny")
    first = chains_of(train, lambda line: None)
    assert chains_of(train, lambda line: None) == first and made == ["tiny"]
    labelled = [replace(c, labels=(i % 2 == 0,) * len(c.ends)) for i, c in enumerate(first)]
    monkeypatch.setattr("anystep.language.train.uncertainty_fit.chains_of", lambda *_: labelled * 2)
    recipe = ModelRecipe(HeadRecipe(Inside(final=True), hidden=16, heads=4, epochs=1), (train,))
    head = trained(recipe, tiny("tiny"), lambda line: None)
    monkeypatch.setattr("anystep.language.train.uncertainty_fit.fit", None)
    assert trained(recipe, None, lambda line: None).digest != "" and head.model == "tiny"


def test_the_heads_that_ship_are_those_of_their_recipes() -> None:
    engine = load("chainlm-2m")
    head = head_for(engine)
    head.fits(engine)
    assert head.inside == CHAINLM.head.inside and head.recipe == json.loads(json.dumps(asdict(CHAINLM)))
    other = read_head(WEIGHTS / "smollm2-135m-uncertainty.safetensors")
    assert other.inside == SMOLLM2.head.inside and other.recipe == json.loads(json.dumps(asdict(SMOLLM2)))
    assert other.model == "smollm2-135m" and other.module.parameters_in_all < row.MOST
