"""Row 153: workers of SmolLM2 over one cache of keys, against keys rotated one by one and ordinary decoding.

Stated time: three minutes on one quiet core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anystep import keys as lineage
from anystep.calibrate.interval import bootstrap_mean
from anystep.experiments._figures import held, table
from anystep.experiments.check import Check, Result
from anystep.ledger import Ledger, Limit

ROW = 153
TASK = (
    "Alice and Bob work together on one page and see what the other is writing. They divide the work and never repeat "
    "each other. Write about {about}, in short paragraphs."
)
ABOUT = ("the sea", "how bread is made", "the history of bicycles", "keeping bees")
SCALED = (1.0, 2.0, 4.0, 8.0)
SHAPES: Mapping[str, dict[str, Any]] = {
    "plain RoPE": {},
    "scaled RoPE": {"rope_factors": SCALED},
    "scaled RoPE and windows with another base": {
        "rope_factors": SCALED,
        "windows": (7, None),
        "near_theta": 500.0,
    },
}
TIE = 1e-4  # two best logits closer than this are a tie


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    model: str | Any = "smollm2-135m",
    about: Sequence[str] = ABOUT,
    tokens: int = 48,
    timed: int = 40,
    stop: str = "\n\n",
) -> Result:
    """Check every clause of the row.

    model: a name, whose fp32 form is checked and whose int8 form is timed beside it, or an engine. about: a prompt for
    each. tokens: that each worker writes. timed: paired steps whose CPU time is compared. stop: what ends a paragraph.
    """
    from anystep.language import load

    began = time.perf_counter()
    engine = load(model, weights="fp32") if isinstance(model, str) else model
    prompts = [written(engine, TASK.format(about=topic)) for topic in about]
    checks = [*(turned(name, shape, seed) for name, shape in SHAPES.items())]
    real, furthest = on_real_keys(engine, prompts[0])
    checks.append(real)
    checks += alone(engine, prompts, tokens, seed)
    checks += reading(engine, prompts[0])
    progress("\n".join(map(str, checks)))
    booked, pages = together(engine, [TASK.format(about=topic) for topic in about], tokens, seed, stop)
    checks += booked
    fast, rows = load(model, weights="int8") if isinstance(model, str) else model, []
    for form, timing in {"fp32": engine, "int8": fast}.items():
        paired, found = steps(timing, prompts[0], timed)
        rows += [[form, *row] for row in found]
        clause = f"CPU time of a 2-worker step over an ordinary step, {form}"
        checks.append(held(clause, bootstrap_mean(paired), "<=", 1.5))
        progress(str(checks[-1]))
    head = ["form", "step", "CPU ms, median", "over an ordinary step", "a token"]
    size = real_size(engine, prompts[0])
    notes = (
        f"{table(head, rows)}\n\nOn the model's own keys the two differ by {furthest:.2g} at most, of values up to "
        f"{size:.1f}. One of the pages, sampled at temperature 0.7:\n\n{pages[0]}"
    )
    return Result("hogwild", ROW, tuple(checks), time.perf_counter() - began, seed, notes)


def written(engine: Any, prompt: str) -> tuple[int, ...]:
    from anystep.language import LanguageProcess

    return LanguageProcess(engine, prompt).prompt


def by_key(blocks: Any, layer: int, worker: int, q: Tensor) -> Tensor:
    """Attention of one worker's unrotated query (heads, 1, width) with every key rotated to its place in the view."""
    from anystep.language.engine.llama import rotate

    keys, values = blocks.laid(worker, layer)
    at, group, window = keys.shape[1] - 1, q.shape[0] // keys.shape[0], blocks.config.window(layer)
    query = rotate(q[None], *blocks.rotary(layer)(torch.tensor([[at]])))[0]
    scores = query @ keys.repeat_interleave(group, 0).transpose(-1, -2) / q.shape[-1] ** 0.5
    scores[:, :, : max(at + 1 - window, 0) if window else 0] = -torch.inf
    attended: Tensor = scores.softmax(-1) @ values.repeat_interleave(group, 0)
    return attended


def turned(name: str, shape: dict[str, Any], seed: int, rounds: int = 60) -> Check:
    """Three workers with unit normal queries, keys and values, whose blocks join the history now and then."""
    from anystep.language.accelerate.blocks import Blocks
    from anystep.language.engine.llama import Config

    config = Config(vocab=8, dim=64, layers=2, heads=4, kv_heads=2, hidden=8, head_dim=8, **shape)
    generator, worst = torch.Generator().manual_seed(seed), 0.0
    blocks = Blocks(config, torch.randn(2, 2, 2, 30, 8, generator=generator), workers=3)
    for step in range(rounds):
        workers = [0, 1, 2] if step % 3 else [0, 2]
        attend = blocks.write(workers)
        for layer in range(2):
            q, k, v = (torch.randn(len(workers), n, 1, 8, generator=generator) for n in (4, 2, 2))
            for out, query, worker in zip(attend(layer, q, k, v), q, workers, strict=True):
                worst = max(worst, float((out - by_key(blocks, layer, worker, query)).abs().max()))
        if step % 10 == 9:
            blocks.join(step // 10 % 3)
    return Check(f"{name}: attention over blocks minus that over keys rotated one by one, at most", worst, "<=", 1e-5)


@torch.inference_mode()
def on_real_keys(engine: Any, prompt: tuple[int, ...], rounds: int = 8) -> tuple[Check, float]:
    """The same on what the model's own layers hand over, in units of the largest value attended; and the difference."""
    from anystep.language.accelerate.hogwild import HogwildEngine

    ours, relative, furthest = HogwildEngine(engine, prompt), 0.0, 0.0
    write = ours.blocks.write

    def watching(workers: Sequence[int]) -> Callable[..., Tensor]:
        attend = write(workers)

        def both(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            nonlocal relative, furthest
            out = attend(layer, q, k, v)
            for mine, query, worker in zip(out, q, workers, strict=True):
                apart = float((mine - by_key(ours.blocks, layer, worker, query)).abs().max())
                furthest = max(furthest, apart)
                relative = max(relative, apart / float(ours.blocks.laid(worker, layer)[1].abs().max()))
            return out

        return both

    ours.blocks.write = watching  # type: ignore[method-assign]
    heads = [engine.tokenizer.encode(text) for text in ("Alice:" * rounds, "Bob:" * rounds)]
    for first, second in zip(heads[0][:rounds], heads[1][:rounds], strict=True):
        ours.feed({0: first, 1: second})
    return Check("the model's own keys: the same, in units of the largest value", relative, "<=", 1e-5), furthest


def real_size(engine: Any, prompt: tuple[int, ...]) -> float:
    from anystep.language.accelerate.hogwild import HogwildEngine

    return float(HogwildEngine(engine, prompt).blocks.common[:, 1].abs().max())


def alone(engine: Any, prompts: Sequence[tuple[int, ...]], tokens: int, seed: int) -> Iterator[Check]:
    """One worker against an ordinary session, up to the first near tie when greedy, and at temperature 1 with the same
    draws."""
    from anystep import keys
    from anystep.language.accelerate.hogwild import HogwildEngine
    from anystep.language.engine.sampling import draw

    for temperature in (0.0, 1.0):
        apart, ties = 0, 0
        for i, prompt in enumerate(prompts):
            one = HogwildEngine(engine, prompt, workers=1)
            root = lineage.roots(seed, (), np.array([i]))
            with engine.open(engine.plan([prompt])) as session:
                for at in range(tokens):
                    u = keys.uniforms(root, at)
                    pair = [draw(x, u, temperature)[0][0] for x in (session.logits(), one.logits([0]))]
                    best = session.logits()[0].topk(2).values
                    if temperature == 0 and float(best[0] - best[1]) < TIE:
                        ties += 1
                        break
                    apart += pair[0] != pair[1]
                    session.append([int(pair[0])])
                    one.feed({0: int(pair[1])})
                    if at % 16 == 15:
                        one.blocks.join(0)
        told = f"temperature {temperature:.0f}: tokens of one worker that ordinary decoding has not"
        yield Check(f"{told}, of {len(prompts)} x {tokens} ({ties} near ties)", apart, "==", 0)


@torch.inference_mode()
def reading(engine: Any, prompt: tuple[int, ...]) -> Iterator[Check]:
    """How far B's logits at the next step move when A writes another token: with a shared cache and, ablated, blind."""
    from anystep.language.accelerate.hogwild import HogwildEngine

    half = engine.config.vocab // 2  # any token will do

    def after(shared: bool, token: int) -> Tensor:
        ours = HogwildEngine(engine, prompt, shared=shared)
        for tokens in ({0: 5, 1: 6}, {0: token, 1: 7}, {0: 8, 1: 9}):
            ours.feed({worker: half + t for worker, t in tokens.items()})
        return ours.logits([1])

    moved = {s: [float((after(s, t) - after(s, 4)).abs().max()) for t in (10, 20, 30)] for s in (True, False)}
    yield Check("B's logits, by A's last token: the least of their largest changes", min(moved[True]), ">", 1e-3)
    yield Check("ablation, workers blind to each other: the largest change", max(moved[False]), "==", 0)


def together(engine: Any, prompts: Sequence[str], tokens: int, seed: int, stop: str) -> tuple[list[Check], list[str]]:
    """Two workers write a page on each prompt: what was fed against what stands there."""
    from anystep.language.accelerate.hogwild import Hogwild
    from anystep.language.accelerate.transcripts import Board

    again, joined, unpaid, pages = 0, 0, 0, list[str]()
    for prompt in prompts:
        process = Hogwild(engine, prompt, temperature=0.7, max_tokens=tokens, stop=stop)
        process.forget()
        before, limit = engine.counters.positions, Limit(Ledger(), "hogwild")
        keys = lineage.roots(seed, (), np.arange(1))
        states = process.step(process.start(keys, limit).states, keys, limit, "done").states
        fed = engine.counters.positions - before
        again += fed - len(process.prompt) - sum(t >= 0 for tokens in states.rounds[0][:-1] for t in tokens)
        unpaid += abs(fed - limit.used.evaluations)
        joined += len(Board.of(process, states.rounds[0]).finished)
        pages.append(states.texts()[0])
    return [
        Check(f"tokens encoded again, of {len(prompts)} pages", again, "==", 0),
        Check("paragraphs that joined the history meanwhile", joined, ">", 0),
        Check("positions computed that no ledger has", unpaid, "==", 0),
    ], pages


def steps(engine: Any, prompt: tuple[int, ...], timed: int) -> tuple[list[float], list[list[object]]]:
    """CPU time of a step: ordinary, with one, two and four workers, in turn. Ratios of two workers' to the ordinary."""
    from anystep.language.accelerate.hogwild import HogwildEngine

    session = engine.open(engine.plan([prompt]))
    crews = {n: HogwildEngine(engine, prompt, n) for n in (1, 2, 4)}

    def spent(work: Callable[[], None]) -> float:
        began = time.thread_time()
        work()
        return time.thread_time() - began

    def ordinary() -> None:
        session.append(session.logits().argmax(-1).tolist())

    def round_of(n: int) -> None:
        crews[n].feed(dict(enumerate(crews[n].logits(range(n)).argmax(-1).tolist())))

    found = [
        [spent(ordinary), *(spent(lambda n=n: round_of(n)) for n in crews)]  # type: ignore[misc]
        for _ in range(timed + 3)
    ]
    session.close(keep=False)
    took = np.array(found[3:])
    rows: list[list[object]] = []
    for i, name in enumerate(("ordinary", *(f"{n} worker{'s' * (n > 1)}" for n in crews))):
        ratio = float(np.median(took[:, i] / took[:, 0]))
        each = ratio / max([1, *crews][i], 1)
        rows.append([name, 1e3 * float(np.median(took[:, i])), ratio, each])
    return (took[:, 2] / took[:, 0]).tolist(), rows
