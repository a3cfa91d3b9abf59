"""A model in our engine against transformers on the same weights, `python benchmarks/against_transformers.py [MODEL]`.

The model is one that `load` fetches by name, or a Hugging Face directory. Printed: logits, divergence and perplexity on
a text of ours in one pass, logits of cached decoding over two forks, greedy continuations, and the tokenizers on files.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from anystep.language import load
from anystep.language.engine.engine import Engine
from anystep.language.engine.tokenizer import begun
from anystep.language.fetch import kept_folder
from anystep.language.loading import GEMMA3, SMOLLM2

ROOT = Path(__file__).parent.parent
WHEELS = {"smollm2-135m": SMOLLM2, "gemma-3-270m": GEMMA3}
BEGINNINGS = (
    "The capital of France is",
    "Once upon a time, there was a",
    "List of the planets:\n\n",
    "The three laws of motion are",
)
ROWS = 50  # positions whose distributions are held in float64 at once: a vocabulary may be large


def divergence(one: Tensor, other: Tensor) -> tuple[float, float]:
    """Mean KL(one || other) of logits (positions, vocab), and how often their likeliest tokens agree."""
    total = 0.0
    for a, b in zip(one.split(ROWS), other.split(ROWS), strict=True):
        p, q = a.double().log_softmax(-1), b.double().log_softmax(-1)
        total += float((p.exp() * (p - q)).sum())
    return total / len(one), float((one.argmax(-1) == other.argmax(-1)).double().mean())


def perplexity(logits: Tensor, tokens: Sequence[int]) -> float:
    """Of tokens[1:] under the logits of the positions before them."""
    total, coming = 0.0, torch.tensor(tokens[1:])
    for a, b in zip(logits[:-1].split(ROWS), coming.split(ROWS), strict=True):
        total -= float(a.double().log_softmax(-1).gather(-1, b[:, None]).sum())
    return float(torch.tensor(total / len(coming)).exp())


def decoded(engine: Engine, tokens: Sequence[int], want: Tensor, steps: int = 30) -> float:
    """Largest difference of logits over `steps` tokens decoded in two forks, most of the rest prefilled before."""
    engine.open(engine.plan([tokens[: len(tokens) // 2]])).close()
    start, worst = len(tokens) - steps, 0.0
    with engine.open(engine.plan([tokens[:start]] * 2)) as session:
        for at in range(start, len(tokens)):
            worst = max(worst, *(float((row - want[at - 1]).abs().max()) for row in session.logits()))
            session.append([tokens[at]] * 2)
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare our engine with transformers on the same weights.")
    parser.add_argument("model", nargs="?", default="gemma-3-270m", help=f"{', '.join(WHEELS)}, or a directory")
    parser.add_argument("--tokens", type=int, default=1400, help="length of the text")
    options = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    engine = load(options.model, weights="fp32")
    folder = kept_folder(options.model, WHEELS[options.model]) if options.model in WHEELS else Path(options.model)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    tokens = begun(engine.tokenizer, text)[: options.tokens]
    with torch.inference_mode():
        want = model(torch.tensor([tokens]), use_cache=False).logits[0]
    mine = engine.forward(torch.tensor([tokens]))[0]
    kl, same = divergence(want, mine)
    print(f"{len(tokens)} tokens of docs/language.md in one pass, fp32")
    print(f"  largest difference of logits {float((mine - want).abs().max()):.1e}, KL {kl:.1e}, same argmax {same:.2%}")
    print(f"  perplexity {perplexity(mine, tokens):.4f}, transformers {perplexity(want, tokens):.4f}")
    print(f"  the last 30 decoded in two forks: largest difference {decoded(engine, tokens, want):.1e}")
    for line in BEGINNINGS:
        prompt = begun(engine.tokenizer, line)
        with engine.open(engine.plan([prompt])) as session:
            for _ in range(40):
                session.append([int(session.logits().argmax())])
            found = session.tokens[0]
        with torch.inference_mode():
            theirs = model.generate(torch.tensor([prompt]), max_new_tokens=40, do_sample=False, eos_token_id=None)[0]
        equal = "equal" if found == theirs.tolist() else "DIFFER"
        print(f"  40 greedy tokens {equal}: {engine.tokenizer.decode(found)!r}")
    files = sorted(path for kind in ("docs/*.md", "src/anystep/*.py") for path in ROOT.glob(kind))
    texts = [path.read_text(encoding="utf-8") for path in files]
    alike = [engine.tokenizer.encode(t) == tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
    print(f"  tokens of {sum(alike)} of {len(files)} files equal")


if __name__ == "__main__":
    main()
