"""The learned step reward: for each finished step, the probability that the chain is still right.

The policy's trunk with a head that names the checker's verdict (right, false, illegal, doomed, wrong ending, or behind
an error); the probability of the first is the reward. Naming what is wrong teaches faster than right against wrong.
It is trained mostly on free chains that go wrong on purpose (`tasks.chains.stray`), then on the policy's own samples
as well; a pairwise term sets right above wrong among chains of one prompt, because that is what choosing needs.

The trunk goes on learning to write legal steps, and the judge sees how surprising it finds the step it judges. Looking
up whether an edge was given is learned quickly by writing edges and hardly at all by judging them: without this, a
judge of 3.6M tokens ranked paths at 0.82 within a problem, and picked wrong ones out of 64 more often than greedy did.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice, pairwise
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.errors import UsageError
from anystep.language.engine.llama import Config, Llama
from anystep.language.train.chainlm import Cost, policy
from anystep.language.train.checkpoint import Card, save
from anystep.language.train.checkpoint import load as load_checkpoint
from anystep.language.train.figures import within_auroc
from anystep.language.train.grove import UNLABELLED, WRONG, Grove, Labelled, label, plant
from anystep.language.train.optimise import Optimiser
from anystep.language.train.sampler import sample_many
from anystep.tasks.chains import (
    CHAIN_END,
    FAMILIES,
    PROMPT_END,
    STEP_END,
    Alphabet,
    Verdict,
    family_of,
    problems,
    stray,
)


class StepReward(nn.Module):
    """A Llama trunk that reads a chain twice over: as a judge, and as a writer who may be surprised by a step.

    The verdict at a step's end is a linear reading of the hidden state, plus the step's surprises (the smallest and the
    summed log-probability of its tokens under the trunk's own next-token head), each times a coefficient that is read
    from the hidden state too, because how much surprise counts depends on the family.
    """

    def __init__(self, config: Config, alphabet: Alphabet) -> None:
        super().__init__()
        self.alphabet = alphabet
        self.trunk = Llama(config)
        self.head = nn.Linear(config.dim, len(Verdict))
        self.head_surprise = nn.Linear(config.dim, 2 * len(Verdict))
        nn.init.zeros_(self.head_surprise.weight)
        nn.init.zeros_(self.head_surprise.bias)

    def forward(self, grove: Grove) -> tuple[Tensor, Tensor]:
        """Log-probabilities of verdicts at step ends (steps, verdicts), and of tokens as written (rows, time)."""
        hidden = self.trunk(grove.tokens, grove.positions, grove.attend())
        logs = self.trunk.logits(hidden).log_softmax(-1)
        before = logs.gather(1, grove.previous[..., None].expand_as(logs))
        written = before.gather(-1, grove.tokens[..., None])[..., 0]
        ends = grove.verdict >= 0
        inside, steps = grove.step >= 0, int(grove.step.max()) + 1
        surprise = written.detach()[inside].clamp(min=-12.0) / 4
        least = torch.zeros(steps).scatter_reduce(0, grove.step[inside], surprise, "amin")
        total = torch.zeros(steps).scatter_add(0, grove.step[inside], surprise)
        state = hidden[ends]
        weigh = self.head_surprise(state).view(-1, 2, len(Verdict))
        features = torch.stack([least, total], 1)[grove.step[ends]]
        return (self.head(state) + (features[..., None] * weigh).sum(1)).log_softmax(-1), written

    @torch.inference_mode()
    def read(self, hidden: Tensor, tokens: Sequence[int], start: int) -> list[float]:
        """The probabilities of one chain's finished steps from the trunk's states (time, dim) at all its `tokens`;
        the chain begins at `start`, behind its prompt."""
        marks = (self.alphabet.step_end, self.alphabet.chain_end)
        ends = [i for i in range(start, len(tokens)) if tokens[i] in marks]
        if not ends:
            return []
        logs = self.trunk.logits(hidden[start - 1 : ends[-1]]).log_softmax(-1)
        written = logs.gather(-1, torch.tensor(tokens[start : ends[-1] + 1])[:, None])[:, 0].clamp(min=-12.0) / 4
        edges = [0, *(end + 1 - start for end in ends)]
        steps = [written[a:b] for a, b in pairwise(edges)]
        features = torch.stack([torch.stack([step.min(), step.sum()]) for step in steps])
        state = hidden[ends]
        weigh = self.head_surprise(state).view(-1, 2, len(Verdict))
        logs = (self.head(state) + (features[..., None] * weigh).sum(1)).log_softmax(-1)
        return logs[:, Verdict.RIGHT].exp().tolist()

    @torch.no_grad()
    def probabilities(self, texts: list[str], rows: int = 64, siblings: int = 8) -> list[list[float]]:
        """For each text (prompt and chain), the probability after each finished step that all is right so far.

        An unfinished last step gets none; what follows the full stop is not read. UsageError for a text without the
        prompt's question mark. `rows` rows of up to `siblings` chains of one prompt go through the model at once.
        """
        waiting: dict[str, dict[str, list[int]]] = {}
        for i, text in enumerate(texts):
            prompt, mark, chain = text.partition(PROMPT_END)
            if not mark:
                raise UsageError(f"probabilities(['C1 9 4>37?9*4=36\\n']): no '?' ends the prompt of {text!r}")
            body, stop, _ = chain.partition(CHAIN_END)
            finished = body + stop if stop else body[: body.rfind(STEP_END) + 1]
            if finished:
                waiting.setdefault(prompt + mark, {}).setdefault(finished, []).append(i)
        groups = []
        for prompt, chains in waiting.items():
            for at in range(0, len(chains), siblings):
                some = list(chains)[at : at + siblings]
                unknown = [(Verdict.RIGHT,) * sum(c.count(e) for e in (STEP_END, CHAIN_END)) for c in some]
                groups.append(Labelled(prompt, some, unknown))
        groups.sort(key=lambda g: len(g.prompt) + sum(map(len, g.chains)))
        found: list[list[float]] = [[] for _ in texts]
        for at in range(0, len(groups), rows):
            values = self(plant(groups[at : at + rows], self.alphabet))[0][:, Verdict.RIGHT].exp().tolist()
            coming = iter(values)
            for group in groups[at : at + rows]:
                for chain, steps in zip(group.chains, group.verdicts, strict=True):
                    one = [next(coming) for _ in steps]
                    for i in waiting[group.prompt][chain]:
                        found[i] = list(one)
        return found


def step_reward(name: str = "chainlm-2m-step-reward", folder: Path | None = None) -> StepReward:
    """A saved step reward, ready to score."""
    tensors, card = load_checkpoint(name, folder) if folder else load_checkpoint(name)
    model = StepReward(card.config, card.alphabet)
    model.load_state_dict(tensors)
    return model.eval()


def writer(name: str, folder: Path | None = None) -> tuple[Llama, Alphabet]:
    """What a saved policy writes with, or a step reward's trunk, which went on learning to write while it judged."""
    if not name.endswith("step-reward"):
        return policy(name, folder)
    reward = step_reward(name, folder)
    return reward.trunk.eval(), reward.alphabet


@dataclass(frozen=True)
class Fitting:
    """How a reward is fitted to labels. `start` names the policy whose trunk it starts from.

    `tokens` counts padded tokens, `groups` prompts an update in `micro` passes, `each` chains a prompt. `pairs` weighs
    the pairwise term, `after` the labels behind a first error, `writer` the next-token loss on legal steps.
    """

    start: str = "chainlm-2m"
    seed: int = 0
    tokens: int = 2_400_000
    groups: int = 48
    micro: int = 3
    each: int = 6
    pairs: float = 0.5
    after: float = 0.3
    writer: float = 0.3
    matrix_rate: float = 2e-3
    other_rate: float = 2e-3
    warm_steps: int = 50


@dataclass(frozen=True)
class RewardRecipe(Fitting):
    """Everything that decides a step reward that learns from the exact checker. The policy `start` is sampled, too.

    From the share `own_from` of training on, half of the groups are policy samples, out of `own` prompts sampled once.
    """

    mix: dict[str, float] = field(default_factory=lambda: {"C": 0.45, "P": 0.45, "A": 0.05, "L": 0.05})
    own: int = 1_800
    own_from: float = 0.3


ROUNDS = (
    RewardRecipe(),
    # Own samples from the start, and full weight behind a first error: there the end shows that the goal was missed.
    RewardRecipe(
        seed=1,
        mix={"C": 0.45, "P": 0.47, "A": 0.04, "L": 0.04},
        tokens=2_400_000,
        own=2_400,
        own_from=0.0,
        pairs=1.0,
        after=1.0,
        matrix_rate=1.5e-3,
    ),
)


def strays(recipe: RewardRecipe) -> Iterator[Labelled]:
    """Endless groups of free chains for fresh training problems."""
    rng = Random(recipe.seed)
    for problem in problems("train", rng, recipe.mix):
        family = family_of(problem.prompt)
        yield label(problem.prompt, [stray(family, rng, problem.prompt) for _ in range(recipe.each)])


def samples(recipe: RewardRecipe, model: Llama, alphabet: Alphabet) -> list[Labelled]:
    """Groups of the policy's own chains at temperature 1, for `recipe.own` training problems."""
    stream = problems("train", Random(recipe.seed + 1), recipe.mix)
    prompts = [p.prompt for p in islice(stream, recipe.own)]
    found = sample_many(model, alphabet, prompts, recipe.each, seed=recipe.seed)
    return [g for g in map(label, prompts, found) if g.chains]


def unlikeliness(logs: Tensor, label: Tensor) -> Tensor:
    """-log of the probability of each label, from log-probabilities of verdicts (steps, verdicts): of its name, of any
    but `RIGHT` where it says `WRONG` alone, and 0 where nothing is known."""
    named = F.nll_loss(logs, label.clamp(max=len(Verdict) - 1), reduction="none")
    unnamed = -logs[:, Verdict.RIGHT + 1 :].logsumexp(-1)
    return torch.where(label < WRONG, named, torch.where(label == WRONG, unnamed, 0.0))


def loss_of(model: StepReward, grove: Grove, recipe: Fitting) -> Tensor:
    """Cross-entropy of labels, the pairwise term, and the next-token loss on legal steps, summed over the batch.

    A chain is wrong where a label says so, and its score the summed log-probability of right where there is a label.
    Steps without one count as legal in chains that are not wrong.
    """
    logs, written = model(grove)
    ends = grove.verdict >= 0
    verdict = grove.verdict[ends]
    known = verdict != UNLABELLED
    weight = torch.where(verdict == Verdict.AFTER, recipe.after, 1.0)
    pointwise = (unlikeliness(logs, verdict) * weight).sum()
    rows, width = int(grove.branch.shape[0]), int(grove.branch.max()) + 1
    place = torch.arange(rows)[:, None].expand_as(grove.branch)[ends] * width + grove.branch[ends]
    score = torch.zeros(rows * width).index_add(0, place, torch.where(known, logs[:, Verdict.RIGHT], 0.0))
    wrong = torch.zeros(rows * width).index_add(0, place, (known & (verdict != Verdict.RIGHT)).float()) > 0
    there = torch.zeros(rows * width).index_add(0, place, known.float()) > 0
    legal = (verdict == Verdict.RIGHT) | (verdict == Verdict.DOOMED) | (~known & ~wrong[place])
    score, good, bad = score.view(rows, width), (there & ~wrong).view(rows, width), (there & wrong).view(rows, width)
    pair = (good[:, :, None] & bad[:, None, :]).float()
    gap = F.softplus(score[:, None, :] - score[:, :, None]) * pair
    pairwise = (gap.sum((1, 2)) / pair.sum((1, 2)).clamp_min(1)).sum()
    inside = grove.step >= 0
    return (
        pointwise
        + recipe.pairs * recipe.each * pairwise
        - recipe.writer * written[inside][legal[grove.step[inside]]].sum()
    )


def begun(recipe: Fitting, folder: Path | None = None) -> tuple[StepReward, Llama]:
    """An unfitted reward on the policy's trunk, and the policy."""
    start, alphabet = policy(recipe.start, folder)
    with torch.random.fork_rng(devices=[]):  # the head's draws: the same each time, and nobody else's
        torch.manual_seed(recipe.seed)
        model = StepReward(start.config, alphabet)
    model.trunk.load_state_dict(start.state_dict())
    return model, start


def fit(
    model: StepReward,
    pick: Callable[[float], list[Labelled]],
    recipe: Fitting,
    watch: Callable[[StepReward, int, float], None] | None = None,
) -> Cost:
    """Trains `model` in place on the groups that `pick(share done)` gives for each update, and says what it took."""
    optimiser = Optimiser(model, recipe.matrix_rate, recipe.other_rate, recipe.warm_steps)
    began, began_cpu, tokens, updates, seen = time.perf_counter(), time.process_time(), 0, 0, 0
    while tokens < recipe.tokens:
        picked = (g for g in pick(tokens / recipe.tokens) if g.chains)
        some = sorted(picked, key=lambda g: len(g.prompt) + sum(map(len, g.chains)))
        labels, total = sum(len(v) for g in some for v in g.verdicts), 0.0
        for at in range(0, len(some), recipe.groups // recipe.micro):
            grove = plant(some[at : at + recipe.groups // recipe.micro], model.alphabet)
            loss = loss_of(model, grove, recipe) / labels
            loss.backward()
            total += loss.item()
            tokens += grove.tokens.numel()
        optimiser.step(tokens / recipe.tokens)
        updates, seen = updates + 1, seen + len(some)
        if watch:
            watch(model, tokens, total)
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return Cost(tokens, seen, updates, round(seconds, 1), round(cpu, 1))


def train(
    recipe: RewardRecipe,
    folder: Path | None = None,
    watch: Callable[[StepReward, int, float], None] | None = None,
    earlier: StepReward | None = None,
) -> tuple[StepReward, Cost]:
    """A trained step reward and what it cost, its policy samples included in seconds but not in tokens.

    It goes on from `earlier`, which it changes, or else starts from the policy's trunk.
    """
    fresh, start = begun(recipe, folder)
    model = earlier or fresh
    free, rng = strays(recipe), Random(recipe.seed + 2)
    own: list[Labelled] = []

    def pick(done: float) -> list[Labelled]:
        if not own and done >= recipe.own_from:
            own.extend(samples(recipe, start, model.alphabet))
        half = recipe.groups // 2 if own else 0
        return [next(free) for _ in range(recipe.groups - half)] + [rng.choice(own) for _ in range(half)]

    cost = fit(model, pick, recipe, watch)
    return model.eval(), cost


def logger(every: float, start: str, folder: Path) -> Callable[[StepReward, int, float], None]:
    """Prints, every so many seconds, the mean loss and how well samples of one dev problem are ranked, by family.

    The ranking is the within-problem AUROC of the product of step probabilities, over distinct samples of `start`.
    """
    model, alphabet = policy(start, folder)
    held = {f: [p.prompt for p in islice(problems("dev", Random(1), {f: 1.0}), 40)] for f in FAMILIES}
    drawn = {f: list(map(label, some, sample_many(model, alphabet, some, 12))) for f, some in held.items()}
    began = last = time.perf_counter()
    losses: list[float] = []

    def rank(judge: StepReward, group: Labelled) -> float:
        right = np.array([all(v is Verdict.RIGHT for v in verdicts) for verdicts in group.verdicts])
        steps = judge.probabilities([group.prompt + c for c in group.chains])
        return within_auroc(right, np.array([math.prod(p) for p in steps]))

    def watch(judge: StepReward, tokens: int, loss: float) -> None:
        nonlocal last
        losses.append(loss)
        if time.perf_counter() - last < every:
            return
        line = []
        for letter, groups in drawn.items():
            ranks = [r for r in (rank(judge, g) for g in groups if g.chains) if not math.isnan(r)]
            line.append(f"{letter} {np.mean(ranks):.2f}" if len(ranks) > 5 else f"{letter} -")
        last = time.perf_counter()
        mean = sum(losses) / len(losses)
        print(
            f"{last - began:.0f}s {tokens / 1e6:.2f}M loss {mean:.3f} auroc {' '.join(line)}",
            file=sys.stderr,
            flush=True,
        )
        losses.clear()

    return watch


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train ChainLM's step reward in its rounds and save it.")
    parser.add_argument("--start", default="chainlm-2m", help="the policy it starts from, in --out")
    parser.add_argument("--earlier", help="a saved step reward in --out that has the first round behind it")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint, holding the policy's")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    name, watch = f"{options.start}-step-reward", logger(90, options.start, options.out)
    rounds = [replace(r, start=options.start) for r in ROUNDS]
    model, costs = None, []
    if options.earlier:
        model = step_reward(options.earlier, options.out)
        costs = load_checkpoint(options.earlier, options.out)[1].cost["rounds"]
    for recipe in rounds[len(costs) :]:
        model, cost = train(recipe, options.out, watch, model)
        costs.append(asdict(cost))
        total = {k: round(sum(c[k] for c in costs), 1) for k in costs[0]}
        card = Card(
            name if len(costs) == len(rounds) else f"{name}-{len(costs)}",
            "step-reward",
            model.trunk.config,
            model.alphabet,
            {"seed": 0, "rounds": [asdict(r) for r in rounds[: len(costs)]]},
            total | {"rounds": costs},
        )
        card = save(model, card, options.out)
        print(f"{card.name}: {total['tokens']:,} tokens in {total['seconds']:.0f} s, sha256 {card.sha256[:12]}")


if __name__ == "__main__":
    main()
