"""What Medusa costs and saves on SmolLM2 at batch 1: thread seconds over plain decoding's, run one after the other.

python benchmarks/medusa.py int8 8
"""

from __future__ import annotations

import sys
import time
from itertools import count

import numpy as np
import torch

from anystep import Run, drive, search
from anystep.language import LanguageProcess, load
from anystep.language.accelerate import Medusa, Thrift, speculate
from anystep.language.train.selftext import prompts

SEEDS = count()


def seconds(process: LanguageProcess) -> float:
    process.forget()
    began = time.thread_time()
    drive(Run(process, search.sample(n=1), None, next(SEEDS)))
    return time.thread_time() - began


def main(form: str = "int8", number: str = "8") -> None:
    torch.set_num_threads(1)
    engine = load("smollm2-135m", weights=form)
    medusa = Medusa.load(engine)
    asked = [text for text, chat in prompts("test") if chat][: int(number)]
    kinds = {"adaptive": Thrift(), "4 nodes": Thrift(fixed=4), "8 nodes": Thrift(fixed=8), "16 nodes": Thrift(fixed=16)}
    ratios: dict[str, list[float]] = {name: [] for name in kinds}
    passes: dict[str, list[float]] = {name: [] for name in kinds}
    for text in asked:
        plain = LanguageProcess(engine, text, unit="completion", temperature=0.0, max_tokens=64)
        for name, thrift in kinds.items():
            fast = speculate(plain, medusa, thrift=thrift)
            base = seconds(plain)
            ratios[name].append(seconds(fast) / base)
            passes[name].append(fast.rounds.tokens / fast.rounds.looks)
    print(f"{form}, batch 1, {len(asked)} prompts, 64 greedy tokens")
    for name, each in ratios.items():
        print(f"{name:9s} {np.median(each):.2f} of plain's time, {np.mean(passes[name]):.2f} tokens a pass")


if __name__ == "__main__":
    main(*sys.argv[1:])
