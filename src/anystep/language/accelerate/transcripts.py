"""What several workers have written together: rounds of one token each, and the paragraphs that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from anystep.language.engine.tokenizer import Tokenizer

if TYPE_CHECKING:
    from anystep.language.accelerate.hogwild import Hogwild

Round = tuple[int, ...]  # a token for each worker, ENDED where it had ended before
ENDED = -1


@dataclass(frozen=True)
class Transcripts:
    """n joint transcripts, as the rounds they were written in: all else follows from these."""

    rounds: tuple[tuple[Round, ...], ...]
    process: Hogwild = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.rounds)

    def take(self, index: NDArray[np.int64]) -> Self:
        return replace(self, rounds=tuple(self.rounds[i] for i in np.asarray(index).tolist()))

    def join(self, *others: Self) -> Self:
        return replace(self, rounds=tuple(row for states in (self, *others) for row in states.rounds))

    def texts(self) -> tuple[str, ...]:
        """Each transcript: the finished paragraphs in the order they were finished, then the open ones."""
        return tuple(Board.of(self.process, rounds).text() for rounds in self.rounds)


class Board:
    """What stands written after some rounds: the paragraphs that joined the history, and each worker's open one."""

    def __init__(self, heads: Sequence[tuple[int, ...]], tokenizer: Tokenizer, stop: str, joins: bool) -> None:
        self.heads, self.tokenizer, self.stop, self.joins = heads, tokenizer, stop, joins
        self.finished: list[list[int]] = []
        self.open: list[list[int]] = [[] for _ in heads]
        self.lengths = [0] * len(heads)  # of the open paragraphs, headings included
        self.ended = [False] * len(heads)

    @classmethod
    def of(cls, process: Hogwild, rounds: Sequence[Round]) -> Board:
        board = cls(process.heads, process.engine.tokenizer, process.stop, process.shared)
        for tokens in rounds:
            board.write(tokens)
        return board

    def forced(self, worker: int) -> int | None:
        """The heading's next token, where the worker has not come through it yet."""
        head, length = self.heads[worker], self.lengths[worker]
        return head[length] if length < len(head) else None

    @property
    def writing(self) -> list[int]:
        return [worker for worker, ended in enumerate(self.ended) if not ended]

    def write(self, tokens: Round) -> list[int]:
        """The workers whose paragraphs this round finishes, in order."""
        finished = []
        for worker, token in enumerate(tokens):
            if token == ENDED:
                continue
            was_head = self.forced(worker) is not None
            self.open[worker].append(token)
            self.lengths[worker] += 1
            if token in self.tokenizer.ends and not was_head:
                self.ended[worker] = True
            elif self.joins and not was_head and self._closed(worker):
                finished.append(worker)
        for worker in finished:
            self.finished.append(self.open[worker])
            self.open[worker], self.lengths[worker] = [], 0
        return finished

    def _closed(self, worker: int) -> bool:
        body = self.open[worker][len(self.heads[worker]) :]
        return self.stop in self.tokenizer.decode(body)

    def text(self) -> str:
        """Finished paragraphs as they were written, then the open ones, `stop` between them."""
        decode = self.tokenizer.decode
        return "".join(map(decode, self.finished)) + self.stop.join(decode(part) for part in self.open if part)
