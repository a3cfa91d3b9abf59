"""Budget forcing: thinking is capped, then ended from outside, and the model is asked for its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anystep.errors import UsageError

if TYPE_CHECKING:
    from anystep.language.endpoint.row import Row


@dataclass(frozen=True)
class Thinking:
    """How long a model may think: `Thinking(budget=512)`.

    Preserves nothing: an answer after thinking that was ended is the model's continuation of words that it did not
    choose. Thinking that ends within its budget is left as it is, where waits=0.

    budget: tokens of thinking, after which `close` and `final` are put behind it and the model goes on. open, close:
    the tags around thinking; where the server delivers it apart (`reasoning_content`) they are put around it again for
    the model to go on. waits: how often a model that would end its thinking, budget left, is told `wait` instead.
    Source: Muennighoff et al., "s1: Simple test-time scaling" (2025), arXiv 2501.19393.
    """

    budget: int = 512
    open: str = "<think>"
    close: str = "</think>"
    final: str = "Final answer:"
    waits: int = 0
    wait: str = "Wait"

    def __post_init__(self) -> None:
        for name, value, least in (("budget", self.budget, 1), ("waits", self.waits, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(
                    f"Thinking({name}={value!r}): a whole number, {least} or more, as Thinking(budget=512)."
                )
        if not self.open or not self.close or not (self.wait or not self.waits):
            raise UsageError("Thinking(open='<think>', close='</think>', wait='Wait'): none may be empty text.")

    def said(self, text: str) -> str:
        """What follows the thinking; nothing where it has not ended."""
        if self.close in text:
            return text[text.rindex(self.close) + len(self.close) :]
        return "" if text.lstrip().startswith(self.open) else text

    def goes_on(self, row: Row) -> bool:
        """Whether a row still thinks, as far as can be told: until `close` has come, or text behind thinking that is
        delivered apart."""
        return not row.closed and self.close not in row.text and not (row.thought and row.text)

    def left(self, row: Row) -> int:
        return self.budget - row.generated

    def hold(self, row: Row) -> str | None:
        """The text at which a row is to be held up, to be told to think on."""
        again = self.goes_on(row) and row.waited < self.waits and self.left(row) > 0
        return self.close if again else None

    def prefix(self, row: Row) -> str:
        """The reply's beginning with its thinking in it, as the model would have written it."""
        if not row.thought:
            return row.text
        return self.open + row.thought + (self.close if row.closed or row.text else "") + row.text

    def turned(self, row: Row) -> bool:
        """Judges a row whose request has ended: whether it has to go on thinking, or with its answer, in a new one."""
        if not self.goes_on(row) and row.stopped != self.close:
            return False
        if row.stopped == self.close:  # held up
            row.text = row.text.removesuffix(self.close)
            if self.left(row) > 0:
                row.waited += 1
                self._add(row, self.wait)
                return True
        elif row.finish != "length" and not (row.thought or self.open in row.text):
            return False  # it never thought
        elif row.finish == "length" and self.left(row) > 0:
            return False  # a cap of someone else's
        row.closed = True
        if not row.thought:
            row.text = f"{row.text.rstrip()}\n{self.close}"
        row.text += f"\n\n{self.final}"
        return True

    def _add(self, row: Row, text: str) -> None:
        if row.thought:
            row.thought += text
        else:
            row.text += text
