"""A tiny annotator: it reads a problem, a reference and a candidate, and writes its notes on every line in one go.

It learns from solutions with planted errors, merged and reordered lines, other valid ways and right answers reached
wrongly; alignments are known by construction and verdicts from the exact checker. Source: Rizvi et al., "SPARE:
Single-Pass Annotation with Reference-Guided Evaluation for Automatic Process Supervision" (2025), which has large
models annotate; that the annotator is trained for it is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Literal

from anystep.language.engine.llama import Config, Llama
from anystep.language.train.chainlm import Cost, policy
from anystep.language.train.sampler import sample
from anystep.language.train.tune import Tuning, kept, tune
from anystep.tasks.chains import CHAIN_END, STEP_END, Alphabet, Problem, Verdict, family_of, problems, stray
from anystep.tasks.chains.family import split
from anystep.tasks.chains.merged import merge
from anystep.tasks.chains.notes import LETTERS, Note, asked, note, write
from anystep.tasks.chains.outcome import final
from anystep.tasks.chains.planted import KINDS, plant

CONTEXT = 320
LONGEST = 170  # tokens of notes
Form = Literal["notes", "labels"]


@dataclass(frozen=True)
class SpareRecipe:
    """Everything that decides an annotator. `problems` problems with `each` candidates a round; tokens are padded ones.

    It learns in three rounds: for `first` tokens notes without what the candidate says and is to reach; for `tokens`
    all of them, with `emphasis` on the verdicts, which are few among what is written and the last to be learned; and
    for `last` tokens with `letters` times the weight on alignments, which have suffered from that. mix, levels:
    weights of families and levels; countdown has no level 3. reference: whether it is shown one. form: whole notes, or
    labels alone.
    """

    start: str = "chainlm-2m"
    seed: int = 0
    problems: int = 4_000
    each: int = 3
    mix: Mapping[str, float] = field(default_factory=lambda: {"C": 0.4, "A": 0.33, "L": 0.27})
    levels: Mapping[int, float] = field(default_factory=lambda: {1: 0.6, 2: 0.4})
    first: int = 1_200_000
    tokens: int = 700_000
    last: int = 180_000
    emphasis: float = 10.0
    letters: float = 5.0
    batch: int = 12
    matrix_rate: float = 2e-3
    other_rate: float = 2e-3
    reference: bool = True
    form: Form = "notes"


def referenced(split_name: str, seed: int | str, recipe: SpareRecipe) -> Iterator[Problem]:
    """Endless problems of a split with references, of the families and levels that an annotator knows."""
    for problem in problems(split_name, Random(seed), dict(recipe.mix), dict(recipe.levels)):
        if problem.family != "C" or problem.level < 3:
            yield problem


def candidate(rng: Random, prompt: str, reference: str) -> str:
    """A finished chain for the problem, right or wrong in one of many ways, its lines merged here and there."""
    family, luck = family_of(prompt), rng.random()
    right = family.taught(rng, prompt)
    if luck < 0.2:
        chain = right
    elif luck < 0.45:
        chain = stray(family, rng, prompt)
    elif luck < 0.6 and prompt[0] == "C":
        chain = reordered(rng, prompt, right)
    else:
        chain = plant(prompt, right, rng.choice(list(KINDS)), rng) or right
    if luck > 0.88:
        chain = forced(prompt, chain, reference)
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        chain = merge(prompt, chain, rng.randrange(4)) or chain
    return chain


def reordered(rng: Random, prompt: str, chain: str) -> str:
    """Countdown's operations in another order, worked out rightly; as it was where no order of a few tries can be."""
    family = family_of(prompt)
    texts = [text for text, _ in split(chain)]
    numbers = [(text.split("=")[0][-2], text.split("=")[0][-1]) for text in texts]
    for _ in range(8):
        order = rng.sample(numbers, len(numbers))
        state, steps = family.start(prompt), list[str]()
        value = texts[0][0]
        for operator, right in order:
            legal = {text: after for text, after in family.moves(state).items()}
            text = next((t for t in legal if t.startswith(f"{value}{operator}{right}=")), None)
            if text is None:
                break
            state, value = legal[text], text.partition("=")[2]
            steps.append(text)
        if len(steps) == len(texts) and steps != texts:
            return STEP_END.join(steps) + CHAIN_END
    return chain


def forced(prompt: str, chain: str, reference: str) -> str:
    """The chain with the reference's end written for its own, however it came there."""
    mine, right = final(prompt, chain), final(prompt, reference)
    return chain if mine is None or right is None else chain[: -len(mine) - 1] + right + CHAIN_END


def examples(recipe: SpareRecipe, number: int) -> list[tuple[str, str]]:
    """What the annotator reads and should write, in one of its rounds, counted from 0."""
    seed = recipe.seed + 7 * number
    rng, found = Random(seed + 1), list[tuple[str, str]]()
    for problem, _ in zip(referenced("train", seed, recipe), range(recipe.problems), strict=False):
        for _ in range(recipe.each):
            chain = candidate(rng, problem.prompt, problem.chain)
            if len(chain) > 1 and len(split(chain)) <= 8:
                found.append(example(problem.prompt, problem.chain, chain, recipe, number == 0))
    return [pair for pair in found if len(pair[0]) + len(pair[1]) <= CONTEXT]


def example(prompt: str, reference: str, chain: str, recipe: SpareRecipe, first: bool = False) -> tuple[str, str]:
    """What the annotator reads and should write of one chain."""
    notes = note(prompt, reference, chain)
    if first:
        notes = [replace(one, said="", aim=None) for one in notes]
    if not recipe.reference:
        notes = [replace(one, aligned=()) for one in notes]
    return asked(prompt, reference if recipe.reference else None, chain), write(notes, recipe.form != "labels")


def train(recipe: SpareRecipe, say: Callable[[str], None] = print, earlier: Llama | None = None) -> tuple[Llama, Cost]:
    """The trained annotator and what it cost. It goes on from `earlier`, which it changes, or from the policy."""
    start, alphabet = policy(recipe.start)
    model = earlier or Llama(replace(start.config, context=CONTEXT))
    if earlier is None:
        model.load_state_dict(start.state_dict())
    spent = Cost(0, 0, 0, 0.0, 0.0)
    verdicts = dict.fromkeys("V!", recipe.emphasis)
    both = dict.fromkeys(LETTERS, recipe.letters) | dict.fromkeys("V!", 3.0)
    rounds: tuple[tuple[int, dict[str, float]], ...]
    rounds = ((recipe.first, {}), (recipe.tokens, verdicts), (recipe.last, both))
    for number, (tokens, emphasis) in enumerate(rounds):
        if tokens:
            tuning = Tuning(
                tokens, recipe.batch, recipe.matrix_rate, recipe.other_rate, seed=recipe.seed + 2, emphasis=emphasis
            )
            spent = _sum(spent, tune(model, alphabet, examples(recipe, number), tuning, say))
    return model.eval(), spent


def _sum(one: Cost, other: Cost) -> Cost:
    return Cost(*(round(a + b, 1) for a, b in zip(vars(one).values(), vars(other).values(), strict=True)))


def spare(recipe: SpareRecipe | None = None, say: Callable[[str], None] = print, earlier: Path | None = None) -> Path:
    """The card of the trained annotator; trained once, then kept by the hash of its recipe. earlier: the card of the
    annotator that it goes on from."""
    recipe = recipe or SpareRecipe()

    def make() -> tuple[Llama, Config, Cost]:
        model, cost = train(recipe, say, None if earlier is None else policy(earlier.stem, earlier.parent)[0].train())
        return model, model.config, cost

    told = asdict(recipe) | ({} if earlier is None else {"earlier": earlier.stem})
    return kept(f"{recipe.start}-spare", told, make, recipe.start, kind="annotator")


def annotated(model: Llama, alphabet: Alphabet, asks: Sequence[str], rows: int = 128) -> list[str]:
    """What the annotator writes for each of `asks`, greedily, texts of similar length side by side."""
    order, found = sorted(range(len(asks)), key=lambda i: len(asks[i])), [""] * len(asks)
    for at in range(0, len(order), rows):
        some = order[at : at + rows]
        for i, text in zip(some, sample(model, alphabet, [asks[i] for i in some], 0.0, longest=LONGEST), strict=True):
            found[i] = text
    return found


def labels_of(notes: Sequence[Note | None]) -> tuple[bool | None, ...]:
    """Whether all is right so far, at each line: not behind a wrong one, unknown where a line could not be read."""
    labels, wrong = list[bool | None](), False
    for one in notes:
        wrong = wrong or (one is not None and one.verdict is not Verdict.RIGHT)
        labels.append(False if wrong else None if one is None else True)
    return tuple(labels)
