"""Does a chain end where the problem wants it to, however it got there? What a check of final answers can see."""

from __future__ import annotations

import re
from random import Random

from anystep.tasks.chains.alphabet import CHAIN_END
from anystep.tasks.chains.draw import family_of
from anystep.tasks.chains.family import split


def final(prompt: str, chain: str) -> str | None:
    """What a finished chain ends on: a value, a list, or the node of its last edge. None if it is unfinished."""
    steps = split(chain)
    if CHAIN_END not in chain or not steps:
        return None
    form = {"P": r"[a-z](?P<end>[a-z])", "L": r"[rsxlih]+(?P<end>\d+)"}.get(prompt[0], r".+=(?P<end>\d{1,2})")
    match = re.fullmatch(form, steps[-1][0])
    return match["end"] if match else None


def outcome(prompt: str, chain: str) -> bool:
    """Whether a finished chain ends on the right value, list or node. Its steps may all be wrong."""
    end = final(prompt, chain)
    return end is not None and end == final(prompt, family_of(prompt).taught(Random(0), prompt))
