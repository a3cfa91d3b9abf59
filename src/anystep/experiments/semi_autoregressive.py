"""Row 215: a semi-autoregressive drafter for SmolLM2, trained on its own text, against what each of its parts brings.

Four drafters learn from the same text with the same number of operations: k = 3 with glancing, k = 3 without, k = 1,
and independent parallel heads. Accepted lengths are played on held-out greedy text, which says what plain decoding
would accept; output is compared on the real loop. Stated time: nine CPU-minutes on one
core, and five more the first time, when the text is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from anystep import keys as lineage
from anystep.calibrate.interval import bootstrap_mean, paired_difference
from anystep.experiments._figures import held, table
from anystep.experiments.check import Check, Result
from anystep.ledger import Budget, Ledger, Limit

if TYPE_CHECKING:
    from anystep.experiments._replay import Played

ROW = 215
K, PASSES = 3, 2
DEPTH, NODES = K * PASSES, 24
TIE = 1e-4  # in logits: where the best two are closer, rounding may decide


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    engine: Any = None,
    text: Sequence[Any] | None = None,
    unseen: Sequence[Any] | None = None,
    recipe: Any = None,
    looped: int = 8,
) -> Result:
    """Check every clause of the row.

    engine, text, unseen: the target, what it wrote to train on, and greedy text to test on; by default SmolLM2 in fp32
    and what `train.selftext` has. recipe: of training, but for k and glancing. looped: texts of `unseen` that are
    written again with the drafter in the real loop.
    """
    from anystep.experiments._parallel_heads import ParallelDrafter, train_heads
    from anystep.experiments._replay import play
    from anystep.language import load
    from anystep.language.accelerate.semi_autoregressive import SemiAutoregressiveDrafter
    from anystep.language.train.falcon import FalconRecipe, falcon, train
    from anystep.language.train.selftext import TextRecipe, selftext

    began = time.perf_counter()
    recipe = replace(recipe or FalconRecipe(), seed=seed)
    kept = text is None
    if kept:
        text = selftext(TextRecipe(), progress)
        unseen = selftext(TextRecipe(split="test", sequences=48, warm=0.0, rows=48), progress)
    engine = engine or load("smollm2-135m", weights="fp32")
    assert text is not None and unseen is not None

    def trained(**changes: Any) -> Any:
        own = replace(recipe, **changes)
        progress(f"drafter of k = {own.k}, glancing {own.glance}")
        return falcon(own, say=progress) if kept else train(engine, text, own, progress)

    networks = {"k = 3, glancing": trained(), "k = 3": trained(glance=0.0), "k = 1": trained(k=1)}
    heads = train_heads(engine, networks["k = 3"], text, recipe, DEPTH, progress)
    drafters: dict[tuple[str, str], Any] = {}
    for name, network in networks.items():
        drafters[name, "chain"] = SemiAutoregressiveDrafter(engine, network, DEPTH // network.k, tree=False)
    drafters["k = 3, glancing", "tree"] = SemiAutoregressiveDrafter(engine, networks["k = 3, glancing"], PASSES)
    for shape in ("chain", "tree"):
        drafters["parallel heads", shape] = ParallelDrafter(engine, heads, tree=shape == "tree")
    played = {}
    for (name, shape), drafter in drafters.items():
        played[name, shape] = play(engine, drafter, unseen, NODES if shape == "tree" else DEPTH, DEPTH)
        progress(f"{name}, {shape}: {accepted(played[name, shape]):.3f} accepted a target pass")
    equal, told = same(engine, drafters["k = 3, glancing", "tree"], unseen[:looped])
    checks = (equal, *lengths(played))
    return Result("semi_autoregressive", ROW, checks, time.perf_counter() - began, seed, notes(played, text, told))


def accepted(played: Sequence[Played]) -> float:
    """Draft tokens accepted a target pass, over all rounds of all texts."""
    return sum(sum(one.accepted) for one in played) / sum(one.rounds for one in played)


def lengths(played: dict[tuple[str, str], list[Played]]) -> Iterator[Check]:
    """The clauses on accepted lengths and on the drafter's own passes."""
    ours = [one.mean for one in played["k = 3, glancing", "chain"]]
    for name, other in (("independent parallel heads", "parallel heads"), ("the drafter without glancing", "k = 3")):
        gain = paired_difference(ours, [one.mean for one in played[other, "chain"]])
        yield held(f"tokens accepted of chains of {DEPTH}, minus those of {name} of equal training", gain, ">", 0.0)
    one, three = accepted(played["k = 1", "chain"]), accepted(played["k = 3, glancing", "chain"])
    ratio = (DEPTH / one) / (PASSES / three)
    yield Check(f"drafter passes an accepted token, k = 1 over k = {K}, chains of {DEPTH}", ratio, ">=", 2.0)
    gain = paired_difference([one.mean for one in played["k = 3, glancing", "tree"]], ours)
    yield held(f"tokens accepted a target pass, trees of {NODES} minus chains of {DEPTH}", gain, ">", 0.0)


def written_again(engine: Any, drafter: Any, texts: Sequence[Any]) -> tuple[Sequence[tuple[int, ...]], Any]:
    """Greedy answers to the prompts of `texts`, by the real loop with this drafter, and its counts."""
    from anystep.language import LanguageProcess, Sequences
    from anystep.language.accelerate import Thrift, speculate

    longest = max(len(one.tokens) - one.start for one in texts)
    plain = LanguageProcess(engine, "?", unit="completion", temperature=0.0, max_tokens=longest)
    fast = speculate(plain, drafter, thrift=Thrift(fixed=NODES))
    starts = tuple(one.start for one in texts)
    states = Sequences(tuple(one.tokens[: one.start] for one in texts), starts, engine.tokenizer)
    keys = lineage.roots(0, (0,), np.arange(len(texts)))
    return fast.step(states, keys, Limit(Ledger(Budget()), "experiment"), "done").states.tokens, fast.rounds


def same(engine: Any, drafter: Any, texts: Sequence[Any]) -> tuple[Check, str]:
    """The clause on the output: the loop writes held-out texts again; and what it says this took."""
    import torch

    found, rounds = written_again(engine, drafter, texts)
    apart, ties = 0, 0
    for ours, one in zip(found, texts, strict=True):
        at = next((i for i, (a, b) in enumerate(zip(ours, one.tokens, strict=False)) if a != b), None)
        if at is not None:
            top = engine.forward(torch.tensor([one.tokens[:at]]))[0, -1].topk(2).values
            near = float(top[0] - top[1]) < TIE
            apart, ties = apart + (not near), ties + near
        elif len(ours) < len(one.tokens):
            apart += 1
    told = (
        f"In the real loop {len(texts)} texts took {rounds.looks:,} target passes for {rounds.tokens:,} tokens "
        f"({rounds.tokens / rounds.looks:.2f} a pass), {rounds.shown / rounds.looks:.1f} nodes shown in each."
    )
    return Check(
        f"greedy texts of {len(texts)} that differ before a near tie ({ties} ties excepted)", apart, "==", 0
    ), told


def notes(played: dict[tuple[str, str], list[Played]], text: Sequence[Any], told: str) -> str:
    """Accepted tokens of every drafter, as chains and trees."""
    rows: list[list[object]] = []
    for (name, shape), found in played.items():
        passes = {"parallel heads": 1, "k = 1": DEPTH}.get(name, PASSES)
        mean = accepted(found)
        rows.append([name, shape, mean, str(bootstrap_mean([one.mean for one in found])), passes, passes / mean])
    head = [
        "drafter",
        "shape",
        "accepted a target pass",
        "mean over texts",
        "drafter passes",
        "passes an accepted token",
    ]
    size = sum(len(one.tokens) - one.start for one in text)
    return (
        f"Trained on {len(text)} texts of {size:,} tokens that the target wrote; played on {len(found)} held-out "
        f"greedy texts, {DEPTH} levels deep, trees of {NODES} nodes. {told}\n\n{table(head, rows)}"
    )
