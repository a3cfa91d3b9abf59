"""Step labels from one reading: a tiny model notes on every line of a candidate what it does, beside a reference."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anystep.drive import drive
from anystep.errors import AnystepError, UsageError
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Llama
from anystep.language.engine.tokenizer import Alphabet
from anystep.language.process import LanguageProcess
from anystep.language.train import checkpoint
from anystep.language.train.grove import Labelled
from anystep.language.train.labelled import steps_labelled
from anystep.language.train.spare import LONGEST, labels_of
from anystep.language.train.spare import spare as trained
from anystep.ledger import Budget, Cost
from anystep.run import Run
from anystep.search import sample
from anystep.tasks.chains import CHAIN_END
from anystep.tasks.chains.concluded import concluded
from anystep.tasks.chains.family import split
from anystep.tasks.chains.notes import Note, asked, read, readable


@dataclass(frozen=True)
class Annotated:
    """What was noted of one chain: a note a line with the verdict that its evidence allows (`tasks.chains.concluded`),
    None where the annotator wrote nothing that can be read; its text as written; and what it cost. `labels`: whether
    all is right so far, None where that is not known."""

    chain: str
    notes: tuple[Note | None, ...]
    text: str
    cost: Cost

    @property
    def labels(self) -> tuple[bool | None, ...]:
        return labels_of(self.notes)


@dataclass(frozen=True)
class Spare:
    """An annotator of arithmetic, lists and countdown with three or four numbers; call it with a problem, a reference
    and candidates."""

    name: str
    engine: Any = field(default=None, compare=False, repr=False)

    def __call__(
        self, prompt: str, reference: str, chains: Sequence[str], budget: Budget | None = None
    ) -> list[Annotated]:
        """Notes on finished chains, each from one greedy generation; all of them are written side by side.

        budget: of each chain; what it cuts off is not known. UsageError for chains that cannot be annotated.
        """
        processes = [self._process(prompt, reference, chain) for chain in chains]
        runs = [Run(process, sample(n=1), budget, 0) for process in processes]
        try:
            drive(*runs)
        except AnystepError:  # of a run whose budget left it without a line; its notes are unknown
            if budget is None:
                raise
        texts = [(run.answer.text or "") if run.answer is not None else "" for run in runs]
        return [
            Annotated(chain, tuple(concluded(prompt, reference, chain, read(text, len(split(chain))))), text, run.spent)
            for chain, text, run in zip(chains, texts, runs, strict=True)
        ]

    def labelled(self, prompt: str, reference: str, chains: Sequence[str]) -> Labelled:
        """A group for `language.train.labelled.train`, with these notes' labels."""
        return steps_labelled(prompt, chains, [one.labels for one in self(prompt, reference, chains)])

    def _process(self, prompt: str, reference: str, chain: str) -> LanguageProcess:
        if not readable(prompt):
            raise UsageError(f"spare annotates arithmetic, lists and countdown ('C1 9 4>37?'), not {prompt[:40]!r}")
        for who, text in {"reference": reference, "chain": chain}.items():
            if CHAIN_END not in text or not 1 <= len(split(text)) <= 8:
                raise UsageError(f"spare()('C1 9 4>37?', reference, chains): a {who} of 1 to 8 lines, the last with a "
                                 f"full stop, such as '9*4=36\\n36+1=37.', got {text!r}")  # fmt: skip
        text = asked(prompt, reference, chain)
        return LanguageProcess(
            self.engine, text, unit="completion", end=(CHAIN_END,), temperature=0.0, max_tokens=LONGEST, name=self.name
        )


@functools.cache
def _loaded(path: Path) -> Engine:
    tensors, card = checkpoint.load(path.stem, path.parent)
    model = Llama(card.config)
    model.load_state_dict(tensors)
    return Engine(model.eval().requires_grad_(False), Alphabet(card.alphabet.symbols), name=path.stem)


def spare(model: Path | str | None = None) -> Spare:
    """The annotator: for every line of a candidate what it builds on, the operations worked out anew, the reference's
    lines that it stands for (none, one or several), the kind of its error and a label, in one pass.

    model: the card of an annotator; the default is trained the first time, and kept in the cache folder. Preserves
    nothing: labels are a model's. A valid way other than the reference's is not punished. Source: Rizvi et al.,
    "SPARE: Single-Pass Annotation with Reference-Guided Evaluation for Automatic Process Supervision" (2025).
    """
    path = Path(model) if model is not None else trained()
    return Spare(path.stem, _loaded(path))
