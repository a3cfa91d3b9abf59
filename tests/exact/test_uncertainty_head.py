"""The uncertainty head reads what the model computed, sees no further than it says, and costs what it says."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from anystep import Ledger, Limit, search, verify
from anystep.drive import drive
from anystep.errors import ModelError, UsageError
from anystep.experiments.uncertainty_head import fingerprint
from anystep.language import LanguageProcess
from anystep.language.engine.engine import Engine
from anystep.language.engine.tokenizer import Alphabet
from anystep.language.internals import Inside, reader
from anystep.language.states import Sequences
from anystep.language.train import uncertainty, uncertainty_fit
from anystep.language.train.uncertainty import Head, Shape, UncertaintyHead
from anystep.language.train.worked import Chain, step_ends, write
from anystep.naming import named_method
from anystep.run import Run
from anystep.tasks.chains import chains
from anystep.testing import check_reward
from anystep.testing.counting import counted_torch
from models import SYMBOLS, chain_engine, text, tiny_engine

RECIPE = uncertainty_fit.HeadRecipe(Inside(values=(1, 3), final=True), hidden=32, epochs=3)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return chain_engine()


@pytest.fixture(scope="module")
def written(engine: Engine) -> list[Chain]:
    return write(engine, chains(24, families="C", split="train"), 4, temperature=1.0)


@pytest.fixture(scope="module")
def head(engine: Engine, written: list[Chain]) -> Head:
    return uncertainty_fit.fit(engine, written[:64], RECIPE, written[64:], say=lambda line: None)


def states(engine: Engine, some: list[Chain], lengths: Any = None) -> Sequences:
    tokens = [c.tokens if lengths is None else c.tokens[:n] for c, n in zip(some, lengths or some, strict=True)]
    return Sequences(tuple(tokens), tuple(c.start for c in some), engine.tokenizer)


def limit() -> Limit:
    return Limit(Ledger(), "test")


def weights_of(engine: Engine, tokens: tuple[int, ...]) -> Tensor:
    """(layers, heads, time, time) attention weights of one plain pass."""
    found = []

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(
            torch.ones(q.shape[2], q.shape[2]).triu(1).bool(), -math.inf
        )
        found.append(scores.softmax(-1)[0])
        return scores.softmax(-1) @ v

    with torch.no_grad():
        engine.run(torch.tensor([tokens]), None, attend)
    return torch.stack(found)


def test_attention_features_are_those_of_one_plain_pass_however_the_cache_was_filled() -> None:
    engine, tokens, start = tiny_engine(), text(40), 9
    inside = Inside(attention=3)
    watching = reader(engine, inside)
    other = tokens[:20] + text(20, seed=5)
    for some in ([tokens[:12]], [tokens[:30], other], [tokens[:39], other]):  # in pieces, and beside a fork
        with watching.open(watching.plan(some)) as session:
            read = inside.read(session, 0, start, tokens[start : len(some[0]) + 1])
    weights = weights_of(engine, tokens)
    for i, place in enumerate(range(start, 40)):
        rows = [weights[:, :, place - 1, place - 1 - back] for back in range(3)]
        assert torch.allclose(read[i], torch.stack(rows, -1).flatten(), atol=1e-5)


def test_nothing_is_attended_before_the_first_position() -> None:
    inside = Inside(attention=3)
    watching = reader(tiny_engine(), inside)
    with watching.open(watching.plan([text(2)])) as session:
        read = inside.read(session, 0, 1, text(2)[1:]).view(2, 4, 3)
    assert torch.equal(read[..., 0], torch.ones(2, 4)) and not read[..., 1:].any()


def test_what_the_cache_keeps_is_read_as_a_fresh_pass_gives_it() -> None:
    engine, tokens, start = tiny_engine(), text(30), 8
    words = (3, 9, tokens[12])
    inside = Inside(probabilities=4, shortlist=words, values=(0, 1), final=True)
    for some in (tokens[:10], tokens[:11], tokens[:29]):
        with engine.open(engine.plan([some])) as session:
            read = inside.read(session, 0, start, tokens[start : len(some) + 1])
    kept: list[Tensor] = []

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        kept.append(v[0])
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    with torch.no_grad():
        hidden = engine.run(torch.tensor([tokens]), None, attend)[0]
        logs = engine.model.logits(hidden).log_softmax(-1)
    for i, place in enumerate(range(start, 30)):
        best = logs[place - 1].sort(descending=True).values[:4].clamp(min=-12)
        own = logs[place - 1, tokens[place]].clamp(min=-12)
        values = [kept[layer][:, place - 1].flatten() for layer in (0, 1)]
        among = sorted({*words, tokens[place]})
        listed = logs[place - 1] - logs[place - 1, among].logsumexp(0)
        which = torch.tensor([float(tokens[place] == word) for word in words])
        said = [listed[list(words)].clamp(min=-12), which, listed[tokens[place]][None].clamp(min=-12)]
        assert torch.allclose(read[i], torch.cat([best, own[None], *said, *values, hidden[place - 1]]), atol=1e-4)
    assert any(token in words for token in tokens[start:]) and inside.flops(engine, 7) == 2 * 7 * 32 * (4 + 64)
    with pytest.raises(UsageError, match="reads tied embeddings, which tiny has not"):
        untied = tiny_engine(tied=False)
        with untied.open(untied.plan([tokens])) as session:
            inside.read(session, 0, start, tokens[start:])


def test_a_step_s_verdict_does_not_change_when_the_chain_goes_on(
    engine: Engine, head: Head, written: list[Chain]
) -> None:
    chain = max(written, key=lambda c: len(c.ends))
    reward = verify.uncertainty_head(engine, head)
    whole = reward.steps(states(engine, [chain]), limit())[0]
    assert len(whole) == len(chain.ends) >= 3
    for k, end in enumerate(chain.ends):
        fresh = verify.uncertainty_head(engine, head)
        assert fresh.steps(states(engine, [chain], [end]), limit())[0] == pytest.approx(whole[: k + 1], abs=1e-5)


def test_a_row_marks_its_step_and_sees_no_further() -> None:
    blind = uncertainty.batches([torch.zeros(9, 4)], [[3, 9]])[0]
    assert blind[2].sum(1).tolist() == [3, 9] and blind[1].sum(1).tolist() == [3, 6]


def test_its_flops_are_those_torch_counts() -> None:
    module = UncertaintyHead(Shape(20, 16, 2, 4)).eval()
    features, ends = [torch.randn(11, 20)], [[4, 7, 11]]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tokens = [module.embed(x) for x in features]
        for place, end in enumerate(ends[0]):
            begin = [0, *ends[0]][place]
            step = ((torch.arange(end) >= begin) & (torch.arange(end) < end))[None]
            module(tokens[0][None, :end], step, torch.ones(1, end, dtype=torch.bool))
    products = sum(4 * n * n * 16 for n in ends[0]) * 2  # attention of two layers, which torch does not count on a CPU
    counted = counter.get_total_flops()
    assert module.flops(11, ends[0]) in (counted, counted + products)


def test_it_learns_what_the_features_show_and_nothing_else() -> None:
    torch.manual_seed(0)
    made, features = [], []
    for i in range(120):
        labels = (i % 2 == 0, i % 3 == 0)
        x = torch.randn(10, 6)
        for k, label in enumerate(labels):
            x[5 * k : 5 * k + 5, 0] += 0.0 if label else 2.0
        made.append(Chain(tuple(range(12)), 2, (7, 12), labels, str(i), 0.0))
        features.append(x)
    module = UncertaintyHead(Shape(6, 16, 2, 4))
    recipe = uncertainty_fit.HeadRecipe(Inside(final=True), hidden=16, epochs=6, rate=3e-3)
    uncertainty_fit.optimise(module, features[:80], made[:80], recipe, lambda line: None)
    module.eval()
    held = module.log_odds(features[80:], uncertainty_fit.relative(made[80:]))
    right = [
        (x < 0) == label for row, c in zip(held, made[80:], strict=True) for x, label in zip(row, c.labels, strict=True)
    ]
    assert np.mean(right) > 0.9


def test_its_temperature_undoes_a_scale(engine: Engine, head: Head, written: list[Chain]) -> None:
    features = uncertainty_fit.read(engine, written, head.inside)
    module = UncertaintyHead(head.module.shape)
    module.load_state_dict(head.module.state_dict())
    module.eval().requires_grad_(False)
    one = uncertainty_fit.temperature(module, features, written)
    with torch.no_grad():
        for part in (module.classify[-1].weight, module.classify[-1].bias):
            part *= 3.0
    assert uncertainty_fit.temperature(module, features, written) == pytest.approx(3 * one, rel=0.02)


def test_training_and_use_leave_the_model_as_it_was(written: list[Chain]) -> None:
    engine = chain_engine()
    before = fingerprint(engine.model)
    head = uncertainty_fit.fit(engine, written, replace(RECIPE, epochs=1), say=lambda line: None)
    verify.uncertainty_head(engine, head)(states(engine, written[:4]), limit())
    assert fingerprint(engine.model) == before
    with torch.no_grad():
        parameter = next(engine.model.parameters())
        parameter[0, 0] += 1.0
        changed = fingerprint(engine.model)
        parameter[0, 0] -= 1.0
    assert changed != before


@pytest.mark.parametrize("inside", [RECIPE.inside, Inside(attention=2, probabilities=4)], ids=["cache", "attention"])
@pytest.mark.parametrize("kept", [0, 4096])
def test_it_is_a_reward(written: list[Chain], inside: Inside, kept: int) -> None:
    engine = chain_engine()
    head = uncertainty_fit.fit(engine, written[:40], replace(RECIPE, inside=inside, epochs=1), say=lambda line: None)
    some = written[:3] + written[:1]
    reward = replace(verify.uncertainty_head(engine, head), kept=kept)
    partial = states(engine, some, [some[0].ends[0], some[1].ends[-1], some[2].ends[0] + 1, some[0].ends[-1]])
    check_reward(reward, partial, lambda: counted_torch(engine.model))
    assert reward.range == (0.0, 1.0)


def test_judging_what_was_just_written_takes_no_pass_of_the_model(head: Head) -> None:
    engine = chain_engine()
    task = chains(1, families="C", seed=5)[0]
    process = LanguageProcess(engine, task.prompt, temperature=1.0, **task.generation)
    reward = verify.uncertainty_head(engine, head)
    runs = [Run(process, search.best_of_n(n=6, reward=reward), None, 0)]
    with counted_torch(engine.model) as work:
        answer = drive(*runs)[0]
    cost = answer.costs[reward.name]
    assert cost.evaluations == cost.prompt == cost.calls == 0 and cost.flops > 0
    assert work.evaluations == answer.cost.evaluations


def test_a_chain_that_goes_on_pays_for_its_new_tokens_alone(written: list[Chain]) -> None:
    """Of a head with a pass of its own."""
    engine = chain_engine()
    recipe = replace(RECIPE, inside=Inside(attention=2), epochs=1)
    reward = verify.uncertainty_head(engine, uncertainty_fit.fit(engine, written[:40], recipe, say=lambda line: None))
    chain = max(written, key=lambda c: len(c.ends))
    paid = []
    for end in chain.ends:
        one = limit()
        reward(states(engine, [chain], [end]), one)
        paid.append(one.used.evaluations)
    assert paid == np.diff([0, *(end - 1 for end in chain.ends)]).tolist()
    again = limit()
    reward(states(engine, [chain]), again)
    assert again.used.evaluations == again.used.flops == 0


def test_a_verdict_belongs_to_where_its_chain_begins(engine: Engine, head: Head, written: list[Chain]) -> None:
    whole = states(engine, written[:1])
    later = replace(whole, starts=(written[0].ends[0],))
    reward = verify.uncertainty_head(engine, head)
    first = reward.steps(whole, limit())[0]
    alone = verify.uncertainty_head(engine, head).steps(later, limit())[0]
    assert reward.steps(later, limit())[0] == pytest.approx(alone) and alone != pytest.approx(first[-len(alone) :])


def test_a_text_starts_no_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: Engine) -> None:
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    monkeypatch.setattr(engine, "name", "of nobody's making")
    with pytest.raises(UsageError, match="No uncertainty head is known for of nobody's making"):
        named_method("best_of_n(n=2, reward=uncertainty_head)", "1+1=", asks=lambda name: engine)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("aggregate", ["product", "min", "last"])
def test_steps_become_one(engine: Engine, head: Head, written: list[Chain], aggregate: Any) -> None:
    reward = verify.uncertainty_head(engine, head, aggregate=aggregate)
    some = states(engine, written[:5])
    each = reward.steps(some, limit())
    fold = {"product": math.prod, "min": min, "last": lambda p: p[-1]}[aggregate]
    assert reward(some, limit()).values == pytest.approx([fold(each[i]) for i in range(5)])
    unbegun = Sequences((some.tokens[0][: some.starts[0]],), some.starts[:1], engine.tokenizer)
    assert reward(unbegun, limit()).values.tolist() == [0.5]


def test_it_serves_in_every_kind_of_search(engine: Engine, head: Head) -> None:
    task = chains(1, families="C", seed=5)[0]
    process = LanguageProcess(engine, task.prompt, extract=task.extract, temperature=1.0, **task.generation)
    reward = verify.uncertainty_head(engine, head, aggregate="last")
    for method in (
        search.best_of_n(n=4, reward=reward),
        search.beam(width=2, branch=2, reward=reward),
        search.particle_filter(n=4, potential=reward.log_odds()),
    ):
        answer = drive(Run(process, method, None, 0))[0]
        assert answer.text and answer.costs[reward.name].flops > 0


def test_steps_end_where_a_process_cuts_them() -> None:
    alphabet = Alphabet(SYMBOLS, end=".")
    tokens = alphabet.encode("c?") + alphabet.encode("\n1+1=2\n\n2+2=4\n5")
    assert step_ends(alphabet, tokens, 2, "\n") == [9, 16]
    assert step_ends(alphabet, tokens, 2, "\n", over=True) == [9, 16, 17]
    assert step_ends(alphabet, tokens[:2], 2, "\n", over=True) == []
    assert step_ends(alphabet, alphabet.encode("c?a, b, c"), 2, ", ") == [5, 8]


def test_a_head_is_kept_as_it_was(tmp_path: Path, engine: Engine, head: Head, written: list[Chain]) -> None:
    uncertainty.save(head, tmp_path / "h.safetensors")
    again = uncertainty.load(tmp_path / "h.safetensors")
    assert (again.inside, again.model, again.module.shape) == (head.inside, head.model, head.module.shape)
    some = states(engine, written[:4])
    close = verify.uncertainty_head(engine, tmp_path / "h.safetensors")(some, limit()).values
    assert close == pytest.approx(verify.uncertainty_head(engine, head)(some, limit()).values, abs=0.05)
    assert verify.uncertainty_head(engine, head) != verify.uncertainty_head(engine, again)  # rounded to bf16
    (tmp_path / "h.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="its hash is not the one on its card.*delete it"):
        uncertainty.load(tmp_path / "h.safetensors")


def test_what_cannot_be_meant_is_refused_in_a_line(engine: Engine, head: Head, written: list[Chain]) -> None:
    tiny = tiny_engine()
    with pytest.raises(UsageError, match=r"reads 576 numbers a token of chainlm-2m, and tiny"):
        verify.uncertainty_head(tiny, head)
    with pytest.raises(UsageError, match="No uncertainty head is known for tiny"):
        verify.uncertainty_head(tiny)
    with pytest.raises(UsageError, match="aggregate='mean'"):
        verify.uncertainty_head(engine, head, aggregate="mean")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="stop=''"):
        verify.uncertainty_head(engine, head, stop="")
    with pytest.raises(UsageError, match=r"Inside\(\) reads nothing"):
        Inside()
    with pytest.raises(UsageError, match="layers 0 to 1"):
        reader(tiny, Inside(values=(2,)))
    with pytest.raises(UsageError, match="32 wide cannot have 5 heads"):
        uncertainty_fit.fit(engine, written[:8], replace(RECIPE, heads=5), say=lambda line: None)
    right = [replace(c, labels=(True,) * len(c.labels)) for c in written[:4]]
    with pytest.raises(UsageError, match="not both right and wrong"):
        uncertainty_fit.fit(engine, right, RECIPE)
    with pytest.raises(UsageError, match="reads what its own model wrote"):
        verify.uncertainty_head(engine, head)(Sequences(((1, 2),), (1,), Alphabet("\0ab")), limit())
