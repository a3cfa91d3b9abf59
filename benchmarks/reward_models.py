"""What the outcome reward is worth beside the step reward: ranking, best of n, calibration and planted errors.

Both start from the policy's trunk; the step reward is the one that ships, the outcome reward `verify.chain_outcome()`.
Prints, on held-out problems with 64 samples each: how well right chains are told from wrong ones, best of n,
calibration before and after a map that was fitted on dev problems, and what passes of errors that were planted.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anystep import calibrate, verify
from anystep.calibrate import bootstrap_mean
from anystep.language.train.checkpoint import WEIGHTS
from anystep.language.train.evaluate import Pool, pools
from anystep.language.train.figures import best_of, pass_at
from anystep.language.train.labelled import outcome_reward
from anystep.language.train.reward import StepReward, step_reward
from anystep.tasks.chains import chains
from anystep.tasks.chains.outcome import outcome
from anystep.tasks.planted import planted

SIZES = (1, 2, 4, 8, 16, 32, 64)
READ: dict[str, Callable[[Sequence[float]], float]] = {
    "step reward, product": math.prod,
    "step reward, last": lambda p: p[-1],
    "outcome reward": lambda p: p[-1],
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--problems", type=int, default=40)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    card = outcome_reward()
    models = {"step": step_reward(), "outcome": step_reward(card.stem, card.parent)}
    test = pools(chains(options.problems, "test", 1), "chainlm-2m", models["step"], WEIGHTS, options.samples, 1)
    dev = pools(chains(options.problems, "dev", 1), "chainlm-2m", models["step"], WEIGHTS, 8, 1)
    record: dict[str, Any] = {"problems": options.problems, "samples": options.samples, "greedy": mean(test, "greedy")}
    record["one sample"] = str(bootstrap_mean([pass_at(p.right, 1) for p in test]))
    record["oracle"] = {k: str(bootstrap_mean([pass_at(p.right, k) for p in test])) for k in SIZES}
    for name in READ:
        model = models["outcome" if name.startswith("outcome") else "step"]
        record[name] = figures(name, model, test, dev)
        print(name, json.dumps(record[name], indent=1), flush=True)
    cases = planted(chains(options.problems, "test", 2), seed=0)
    for reward in (verify.chain_steps(), verify.chain_outcome()):
        found = calibrate.on_planted(reward, cases, reward.engine.tokenizer, threshold=0.5)
        print(found, flush=True)
        record[f"planted, {reward.maker}"] = found.as_dict()
    if options.json:
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps({k: record[k] for k in ("greedy", "one sample", "oracle")}, indent=1))


def mean(some: list[Pool], what: str) -> str:
    return str(bootstrap_mean([getattr(p, what) for p in some]))


def scored(name: str, model: StepReward, some: list[Pool]) -> list[np.ndarray]:
    """Each pool's scores; a text without a finished step has none, and comes last."""
    texts = sorted({str(p.task.prompt) + c for p in some for c in p.texts})
    read = dict(zip(texts, model.probabilities(texts), strict=True))
    values = {text: float(READ[name](steps)) if steps else 0.0 for text, steps in read.items()}
    return [np.array([values[str(p.task.prompt) + c] for c in p.texts]) for p in some]


def figures(name: str, model: StepReward, test: list[Pool], dev: list[Pool]) -> dict[str, Any]:
    """Ranking, choosing and calibration of one reward; calibration is of single samples against the exact checker."""
    scores, fitting = scored(name, model, test), scored(name, model, dev)
    groups = [p.task.id for p in test for _ in p.texts]
    x, y = np.concatenate(scores), np.concatenate([p.right for p in test])
    ends = np.array([outcome(str(p.task.prompt), c) for p in test for c in p.texts], dtype=float)
    fit = calibrate.platt(np.concatenate(fitting), np.concatenate([p.right for p in dev]))
    best = {k: [best_of(p.right, s, k) for p, s in zip(test, scores, strict=True)] for k in SIZES}
    return {
        "AUROC": str(calibrate.auroc(x, y, groups)),
        "within a problem": str(calibrate.auroc_within(x, y, groups)),
        "AUROC of ends": str(calibrate.auroc(x, ends, groups)),
        "ECE": str(calibrate.ece(x, y, groups=groups)),
        "ECE, mapped": str(calibrate.ece(fit(x), y, groups=groups)),
        "best of n": {k: str(bootstrap_mean(v)) for k, v in best.items()},
    }


if __name__ == "__main__":
    main()
