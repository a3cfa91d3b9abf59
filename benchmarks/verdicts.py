"""What each verifier lets pass: `python benchmarks/verdicts.py [name ...]`, all by default, into docs/verdicts.json.

Three questions to each: which planted errors it passes (one error a text, named, labelled by the exact checker), how it
fares on the samples of the model it is meant for, and what is left of its verdict when the best of n is chosen by it.
Maps and thresholds are fitted on problems of the dev split, all figures are of the test split. `tools/verdicts_page.py`
writes the tables of docs/verdicts.md from the file. About ten minutes on one core.
"""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from anystep import calibrate, tasks, verify
from anystep.calibrate.maps import fitted
from anystep.calibrate.pressure import SIZES
from anystep.calibrate.verdicts import Verdicts
from anystep.language.train.checkpoint import WEIGHTS
from anystep.language.train.evaluate import AGGREGATES, Pool, pools
from anystep.language.train.reward import step_reward
from anystep.tasks import code
from anystep.tasks.chains import chains
from anystep.tasks.planted import Planted, planted
from anystep.verify.asked import asked_by

FILE = Path(__file__).resolve().parent.parent / "docs" / "verdicts.json"
PROBLEMS, SAMPLES = 400, 64
EACH = 8  # samples a problem that count as the model's own; all of them are chosen from
HARD, EASY = 0.2, 0.8  # problems of which fewer, or more, samples than this share are right
WANTED = 0.05  # the false-positive rate that a threshold is asked for

Record = dict[str, Any]
ENTRIES: dict[str, Callable[[], Record]] = {}


def entry(name: str) -> Callable[[Callable[[], Record]], Callable[[], Record]]:
    """Register what measures a verifier: `planted`, and where there are samples `own` and `winner`."""

    def keep(measure: Callable[[], Record]) -> Callable[[], Record]:
        ENTRIES[name] = measure
        return measure

    return keep


@functools.cache
def chain_cases() -> list[Planted]:
    return planted(chains(PROBLEMS, "test", 0))


@functools.cache
def word_cases() -> list[Planted]:
    return planted(tasks.word_problems(PROBLEMS // 2, split="test", level=3))


@functools.cache
def sampled(split: str) -> list[Pool]:
    """ChainLM's samples at temperature 1 with the step reward's reading of each."""
    reward = step_reward("chainlm-2m-step-reward")
    return pools(chains(PROBLEMS, split, 0), "chainlm-2m", reward, WEIGHTS, SAMPLES)


def own(name: str, scores: Sequence[np.ndarray], some: Sequence[Pool], threshold: float) -> Verdicts:
    """The verdicts on the model's own samples, EACH a problem."""
    x = np.concatenate([s[:EACH] for s in scores])
    y = np.concatenate([p.right[:EACH] for p in some])
    return calibrate.judged(name, x, y, threshold, problems=np.repeat(range(len(some)), EACH).tolist())


def winners(scores: Sequence[np.ndarray], some: Sequence[Pool], n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of disjoint groups of n samples: the winner's score, whether it is right, and its problem."""
    rows = []
    for i, (score, pool) in enumerate(zip(scores, some, strict=True)):
        for at in range(0, len(score) - n + 1, n):
            best = at + int(np.argmax(score[at : at + n]))
            rows.append((score[best], pool.right[best], i))
    said, right, problem = np.array(rows).T
    return said, right, problem.astype(int)


def one_wrong(scores: Sequence[np.ndarray], some: Sequence[Pool]) -> tuple[np.ndarray, np.ndarray]:
    """The first wrong and the first right sample of each problem that has one: independent, as a threshold asks."""
    found = [
        (s[p.right == kind][0], kind) for s, p in zip(scores, some, strict=True) for kind in (0, 1) if kind in p.right
    ]
    x, y = np.array(found).T
    return x, y


def chain_steps(aggregate: str) -> Record:
    """Everything about the shipped step reward with one way to make its steps' probabilities one score."""
    reward = verify.chain_steps(aggregate=aggregate)  # type: ignore[arg-type]
    seen = calibrate.on_planted(reward, chain_cases())
    dev, test = ([np.array([AGGREGATES[aggregate](s) for s in p.steps]) for p in sampled(x)] for x in ("dev", "test"))
    x, y = np.concatenate(dev), np.concatenate([p.right for p in sampled("dev")])
    sample_map = fitted("platt", x, y)
    right = [p.right for p in sampled("test")]
    line = calibrate.threshold_for(WANTED, *one_wrong(dev, sampled("dev")))
    tx, ty = one_wrong(test, sampled("test"))
    held = {"value": line.value, "certainty": line.certainty, "wrong": line.wrong}
    wrong_passed = tx[ty == 0] >= line.value
    held["test"] = asdict(calibrate.wilson(int(wrong_passed.sum()), len(wrong_passed)))
    passed = tx[ty == 1] >= line.value
    held["right_pass"] = asdict(calibrate.wilson(int(passed.sum()), len(passed)))
    scores = np.array(seen.scores)
    bad = np.array([not c.right for c in chain_cases()])
    held["planted"] = asdict(calibrate.wilson(int((scores[bad] >= line.value).sum()), int(bad.sum())))
    return {
        "on": "chains",
        "planted": seen.as_dict(),
        "own": own(reward.name, test, sampled("test"), 0.5).as_dict(),
        "calibrated": own(reward.name, [sample_map(s) for s in test], sampled("test"), 0.5).as_dict(),
        "map": sample_map.as_dict(),
        "winner": [p.as_dict() for p in calibrate.pressure(test, right, 0.5)],
        "winner_by_samples": [p.as_dict() for p in calibrate.pressure(test, right, 0.5, map=sample_map)],
        "excess": {
            "hard": excess(test, sampled("test"), sample_map, lambda share: share < HARD),
            "easy": excess(test, sampled("test"), sample_map, lambda share: share > EASY),
        },
        "winner_by_winners": [winner_fit(dev, test, n, sample_map) for n in SIZES],
        "threshold": held,
    }


def winner_fit(dev: Sequence[np.ndarray], test: Sequence[np.ndarray], n: int, sample_map: Any) -> Record:
    """The calibration error of a winner's confidence, by a map of single samples and by one of winners."""
    said, right, _ = winners(dev, sampled("dev"), n)
    own_map = fitted("platt", said, right)
    said, right, problem = winners(test, sampled("test"), n)
    by = problem.tolist()
    maps = {"samples": sample_map(said), "winners": own_map(said)}
    errors = {k: asdict(calibrate.ece(v, right, groups=by)) for k, v in maps.items()}
    return {"n": n, **errors, "auroc": asdict(calibrate.auroc(said, right, by)), "map": own_map.as_dict()}


def excess(scores: Sequence[np.ndarray], some: Sequence[Pool], map: Any, kept: Callable[[float], bool]) -> list[Record]:
    """How much more a map of samples says of the winner than is true, on problems of one difficulty, at each n."""
    pairs = [(s, p.right) for s, p in zip(scores, some, strict=True) if kept(p.right.mean())]
    found = calibrate.pressure([s for s, _ in pairs], [right for _, right in pairs], map=map)
    return [{"n": one.n, "problems": len(pairs), **asdict(one.excess)} for one in found]


for _aggregate in ("product", "last", "min"):
    entry(f"chain_steps, {_aggregate}")(functools.partial(chain_steps, _aggregate))


@entry("oracle (the bound)")
def oracle() -> Record:
    found = calibrate.on_planted(verify.oracle([c.task for c in chain_cases()]), chain_cases())
    return {"on": "chains", "planted": found.as_dict()}


@entry("equations")
def equations() -> Record:
    """At 1: every equation holds and is grounded, all numbers are used, and the answer is the last result."""
    rewards = [verify.equations(case.task.meta["question"]) for case in word_cases()]
    return {"on": "word problems", "planted": calibrate.on_planted(rewards, word_cases(), threshold=1.0).as_dict()}


@entry("judge, SmolLM2-135M")
def judge() -> Record:
    """A small model asked for a verdict, on fewer problems, for each text is read by it."""
    cases = planted(tasks.word_problems(PROBLEMS // 10, split="test", level=3))
    return {"on": "word problems", "planted": calibrate.on_planted(verify.judge("smollm2-135m"), cases).as_dict()}


@entry("tests, 3 shown")
def tests() -> Record:
    """The examples that a programming problem shows, on programs with one slip; hidden tests are the truth."""
    some = tasks.load("programs", PROBLEMS // 8)
    slips = [(task, slip) for task in some for slip in (code.Slip("right", task.reference), *code.planted(task))]
    texts = [f"```python\n{slip.source}\n```" for _, slip in slips]
    truth = code.score_many([task for task, _ in slips], texts)
    found = calibrate.verdicts(
        [verify.tests(task) for task, _ in slips],
        calibrate.states_of(zip([asked_by(task) for task, _ in slips], texts, strict=True)),
        truth,
        threshold=1.0,
        groups=[slip.kind for _, slip in slips],
        problems=[task.id for task, _ in slips],
        name="tests",
    )
    return {"on": "programs", "planted": found.as_dict()}


def rounded(value: Any) -> Any:
    """Six digits, so that the file changes only where a figure does; NaN as None."""
    if isinstance(value, dict):
        return {str(k): rounded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def main(names: Sequence[str]) -> None:
    if unknown := [n for n in names if n not in ENTRIES]:
        sys.exit(f"no verifier is called {unknown[0]!r}; there are {', '.join(ENTRIES)}")
    found = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in names or ENTRIES:
        found[name] = rounded(ENTRIES[name]())
        FILE.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
        print(name, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
