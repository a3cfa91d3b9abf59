"""A drafter whose accepted guesses are noted by prompt."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from anystep.language.accelerate.drafts import Draft, Drafter, Drafting, Job, Want
from anystep.language.accelerate.verify import Verdict

Accepted = dict[tuple[int, ...], list[int]]


class Noted(Drafter):
    """Drafts as `drafter` does. accepted[prompt] has how many guesses were accepted in each round; the first round of
    each prompt draws from the prompt's own pass."""

    name = "noted"

    def __init__(self, drafter: Drafter) -> None:
        self.drafter = drafter
        self.accepted: Accepted = {}

    def begin(self, job: Job) -> Drafting:
        return Noting(self.drafter.begin(job), job, self.accepted)


class Noting(Drafting):
    def __init__(self, inner: Drafting, job: Job, accepted: Accepted) -> None:
        self.inner, self.job, self.accepted, self.level = inner, job, accepted, inner.level

    def draft(self, wants: Mapping[int, Want]) -> Mapping[int, Draft]:
        return self.inner.draft(wants)

    def told(self, row: int, draft: Draft, verdict: Verdict, hidden: Tensor) -> None:
        prompt = self.job.tokens[row][: self.job.starts[row]]
        self.accepted.setdefault(prompt, []).append(len(verdict.nodes))
        self.inner.told(row, draft, verdict, hidden)

    def close(self) -> None:
        self.inner.close()
