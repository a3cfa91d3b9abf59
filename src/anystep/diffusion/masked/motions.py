"""Eight kinds of motion of a small skeleton, as joint angles over time.

A motion is (FRAMES, JOINTS) in radians (lengths in units of a leg for the pelvis' height): first the upper body, whose
arms hang at 0, then legs and pelvis, which stand at 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FRAMES = 48
UPPER = ("left shoulder", "left elbow", "left lift", "right shoulder", "right elbow", "right lift")
LOWER = ("left hip", "left knee", "right hip", "right knee", "pelvis height", "pelvis turn")
JOINTS = len(UPPER) + len(LOWER)
LABELS = ("walk", "run", "jump", "wave", "turn", "squat", "kick", "punch")


@dataclass(frozen=True)
class Motions:
    """angles: (n, FRAMES, JOINTS). labels: (n,) index into `LABELS`."""

    angles: Floats
    labels: NDArray[np.int64]


def motions(n: int, seed: int = 0) -> Motions:
    """n motions, the labels in turn; speed, phase, size, side, moment and bearing drawn at random."""
    rng, labels = np.random.default_rng(seed), np.arange(n) % len(LABELS)
    return Motions(np.stack([_motion(LABELS[label], rng) for label in labels]), labels)


def _motion(label: str, rng: np.random.Generator) -> Floats:
    x, t = np.zeros((FRAMES, JOINTS)), np.arange(FRAMES)
    turn = 2 * np.pi * (t / rng.uniform(18, 26) + rng.uniform())  # the phase of what goes on and on
    size, side = rng.uniform(0.75, 1.25), int(rng.integers(2))
    beat = np.exp(-0.5 * ((t - rng.uniform(16, 32)) / rng.uniform(4, 6)) ** 2)  # of what is done once
    arm, other, leg = 3 * side, 3 * (1 - side), 6 + 2 * side
    if label in ("walk", "run"):
        fast = label == "run"
        turn = turn * (1.6 if fast else 1.0)
        swing = size * (0.8 if fast else 0.45)
        for i, wave in enumerate((turn, turn + np.pi)):
            x[:, 6 + 2 * i] = swing * np.sin(wave)
            x[:, 7 + 2 * i] = swing * (1 + np.cos(wave)) * 0.8
            x[:, 3 * i] = -0.8 * swing * np.sin(wave)
            x[:, 3 * i + 1] = (1.4 if fast else 0.2) * size
        x[:, 10] = 0.06 * size * np.cos(2 * turn)
    elif label == "jump":
        crouch = np.exp(-0.5 * ((t - t[beat.argmax()] + 9) / 4) ** 2)
        x[:, [6, 8]], x[:, [7, 9]] = 0.7 * size * crouch[:, None], 1.3 * size * crouch[:, None]
        x[:, 10] = size * (0.6 * beat - 0.25 * crouch)
        x[:, [0, 3]] = size * (1.8 * beat - 0.5 * crouch)[:, None]
    elif label == "wave":
        x[:, arm + 2], x[:, arm + 1] = 2.2 * size, 0.8 + 0.5 * size * np.sin(turn * 1.3)
    elif label == "turn":
        rise = np.cumsum(beat) / beat.sum()
        x[:, 11] = (1 if side else -1) * size * 2.0 * rise
        x[:, 6], x[:, 8] = 0.25 * size * beat * np.sin(turn), -0.25 * size * beat * np.sin(turn)
        x[:, [2, 5]] = 0.3 * size * beat[:, None]
    elif label == "squat":
        x[:, [6, 8]], x[:, [7, 9]] = 1.2 * size * beat[:, None], 1.8 * size * beat[:, None]
        x[:, 10], x[:, [0, 3]] = -0.5 * size * beat, 1.2 * size * beat[:, None]
    elif label == "kick":
        back = np.exp(-0.5 * ((t - t[beat.argmax()] + 8) / 4) ** 2)
        x[:, leg], x[:, leg + 1] = size * (1.4 * beat - 0.5 * back), 1.2 * size * back
        x[:, other], x[:, arm] = 0.6 * size * beat, -0.6 * size * beat
    elif label == "punch":
        x[:, arm], x[:, arm + 1] = size * 1.5 * beat, 2.0 * size * (1 - beat)
        x[:, other + 1], x[:, 11] = 1.8 * size, (0.4 if side else -0.4) * size * beat
    bearing = 0.05 * rng.standard_normal(JOINTS)
    sway = 0.03 * np.sin(2 * np.pi * (t[:, None] / rng.uniform(20, 40, JOINTS) + rng.uniform(0, 1, JOINTS)))
    return x + bearing + sway


def acceleration(angles: Floats) -> Floats:
    """(n, frames, joints) to (n, frames - 2): the size of the second difference, over joints the root of the sum of
    squares; entry i is that at frame i + 1."""
    return np.asarray(np.sqrt((np.diff(angles, 2, axis=1) ** 2).sum(-1)))
