"""Self-drafting: a model's own first layers guess, and its other layers verify.

Source: Elhoushi et al., "LayerSkip: Enabling Early Exit Inference and Self-Speculative Decoding" (2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from anystep.errors import UsageError
from anystep.language.accelerate.drafts import Draft, Drafter, Drafting, Job, Want
from anystep.language.accelerate.guesses import Growing
from anystep.ledger import Cost

GUESS = 0.15  # of a pass, estimated: what choosing a guess takes beside its products


@dataclass(frozen=True)
class EarlyLayers(Drafter):
    """The first `layers` layers, the final norm and the head guess token by token. They write their keys where the
    model itself would, and verifying goes on from what came out of them: a position runs through every layer once.

    Drafting costs the head once more for each guess, and a pass through `layers` layers, charged as FLOPs and a call;
    an evaluation is charged where a position goes to the end. Pays only where early layers say what the last would: in
    models trained to exit early. In a model that was not, few guesses hold, and then little is drafted.

    Raises UsageError for layers that the model has not, or a model that cannot be run in parts.
    """

    layers: int
    name = "early-layers"

    def begin(self, job: Job) -> Drafting:
        engine = job.process.engine
        if not 0 < self.layers < engine.config.layers:
            raise UsageError(
                f"EarlyLayers({self.layers}): {engine.name} has {engine.config.layers} layers; some of them, such as "
                f"EarlyLayers({max(1, engine.config.layers // 4)})."
            )
        if not all(hasattr(engine.model, part) for part in ("embed", "blocks", "norm")):
            raise UsageError(f"{engine.name} cannot be run layer by layer; EarlyLayers needs a model that load() made.")
        return Exiting(self, job)


class Exiting(Drafting):
    """One call's drafting, in the target's own session."""

    together = True  # what began for some rows is of use when it began for all

    def __init__(self, drafter: EarlyLayers, job: Job) -> None:
        self.layers, self.job, self.engine = drafter.layers, job, job.process.engine
        self.level = self.engine.flops_of_part(1, 1, 1, self.layers) / self.engine.flops(1, 1, heads=1) + GUESS

    def draft(self, wants: Mapping[int, Want]) -> dict[int, Draft]:
        growing = {row: Growing(self.job.tokens[row], want) for row, want in wants.items()}
        feed = {row: self.job.tokens[row][-1] for row in wants}
        while feed:
            rows = self._paid(list(feed), [row for row in feed if growing[row].more])
            states = self.job.session.begin({self.job.place[row]: feed[row] for row in rows}, self.layers)
            going = [row for row in rows if growing[row].more]
            if going:
                logits = self._logits(torch.stack([states[self.job.place[row]] for row in going]))
                for row, each in zip(going, logits, strict=True):
                    growing[row].guess(each, self.job, row)
            feed = {row: growing[row].path[-1] for row in going}  # the last guess too goes on from here
        return {row: g.draft(self.job) for row, g in growing.items() if g.path}

    @torch.inference_mode()
    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        model: Any = self.engine.model
        return model.logits(model.norm(states))

    def _paid(self, rows: list[int], guessing: list[int]) -> list[int]:
        """The rows that could pay for one more token through the first layers, and for a guess where there is one."""
        session, each = self.job.session, []
        for row in rows:
            at = self.job.place[row]
            begun = session.begun.get(at)
            length = len(session.tokens[at]) + 1 + (len(begun.tokens) if begun else 0)
            each.append(Cost(flops=self.engine.flops_of_part(1, length, int(row in guessing), self.layers)))
        granted = self.job.limit.pay(np.array(rows), each, once=Cost(calls=1))
        return [row for row, paid in zip(rows, granted.tolist(), strict=True) if paid]
