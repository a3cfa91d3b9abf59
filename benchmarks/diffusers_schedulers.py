"""Which schedulers of diffusers does `diffusers_loop` step as diffusers itself does? Each on a small random UNet.

python benchmarks/diffusers_schedulers.py
"""

from __future__ import annotations

import inspect
import logging
import warnings
from typing import Any

import diffusers
import numpy as np
import torch

from anystep import keys as lineage
from anystep.diffusion import diffusers_loop
from anystep.diffusion.adapters.process import DiffusersProcess, seeds_of
from anystep.errors import UsageError
from anystep.ledger import Ledger, Limit

KEYS = lineage.roots(0, (), np.arange(3))
STEPS = 5


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        num_class_embeds=11,
    )  # fmt: skip
    equal = 0
    for name in sorted(n for n in dir(diffusers) if n.endswith("Scheduler")):
        try:
            scheduler = getattr(diffusers, name)()
        except Exception as error:  # some need arguments, some a package that is not there
            print(f"{name:40} not made: {' '.join(str(error).split())[:70]}")
            continue
        try:
            process = diffusers_loop(unet, scheduler, STEPS, condition=3, null=10)
        except UsageError as error:
            print(f"{name:40} refused: {str(error)[:90]}")
            continue
        ended = process.step(process.begin(KEYS), KEYS, Limit(Ledger(), "unet"), "done").states.x
        difference = float((ended - by_hand(process, getattr(diffusers, name)())).abs().max())
        equal += difference == 0
        print(f"{name:40} {process.horizon} evaluations, largest difference {difference:g}")
    print(f"{equal} schedulers give diffusers' own numbers to the bit")


@torch.no_grad()
def by_hand(process: DiffusersProcess, scheduler: Any) -> torch.Tensor:
    """diffusers' documented loop, from the same noise."""
    scheduler.set_timesteps(STEPS)
    noise = torch.from_numpy(lineage.normals(KEYS, 0, 64).reshape(3, 1, 8, 8)).float()
    x = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    for i, t in enumerate(scheduler.timesteps):
        shown = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        said = process.asked(shown, t.expand(3).float(), torch.full((3,), 3))
        named = {}
        if "generator" in inspect.signature(scheduler.step).parameters:
            named["generator"] = [torch.Generator().manual_seed(s) for s in seeds_of(KEYS, i)]
        x = scheduler.step(said, t, x, **named).prev_sample
    return x


if __name__ == "__main__":
    main()
