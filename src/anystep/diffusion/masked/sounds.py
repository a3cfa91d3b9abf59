"""Eight kinds of synthetic sound, and their mel spectrograms there and back.

Spectrograms are decibels over mel bands, scaled so that -60 dB is -1 and 0 dB is 1: (n, bands, frames).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RATE = 8_000  # samples a second
HOP, WINDOW = 64, 256  # samples
BANDS, FRAMES = 40, 208  # 1.664 seconds
SAMPLES = HOP * FRAMES
FLOOR, LIFT = -60.0, 6.0  # decibels: of the quietest that is told, and what brings a full tone to 0
KINDS = ("tone", "rising chirp", "falling chirp", "vibrato", "tremolo", "drum", "pluck", "noise sweep")


@dataclass(frozen=True)
class Clips:
    """waves: (n, samples) in -1..1. kinds: (n,) index into `KINDS`."""

    waves: Floats
    kinds: NDArray[np.int64]


def clips(n: int, seed: int = 0) -> Clips:
    """n clips, the kinds in turn; pitch, timbre, speed, phase and loudness drawn at random."""
    rng, kinds = np.random.default_rng(seed), np.arange(n) % len(KINDS)
    return Clips(np.stack([_wave(KINDS[kind], rng) for kind in kinds]), kinds)


def _wave(kind: str, rng: np.random.Generator) -> Floats:
    t = np.arange(SAMPLES) / RATE
    pitch, share = 150 * 2 ** rng.uniform(0, 2), t / t[-1]
    bend, swell = np.zeros_like(t), np.ones_like(t)  # of the pitch in octaves, and of the loudness
    speed, phase = rng.uniform(3, 7), rng.uniform(0, 1)
    beat = (t * speed + phase) % 1 / speed  # seconds since the last beat
    if kind == "rising chirp":
        bend = rng.uniform(0.8, 1.6) * share
    elif kind == "falling chirp":
        bend = rng.uniform(0.8, 1.6) * (1 - share)
    elif kind == "vibrato":
        bend = rng.uniform(0.1, 0.25) * np.sin(2 * np.pi * (speed * t + phase))
    elif kind == "tremolo":
        swell = 0.55 + 0.45 * np.sin(2 * np.pi * (speed * t + phase))
    elif kind == "pluck":
        swell = np.exp(-beat * rng.uniform(8, 16))
    elif kind == "drum":
        swell = np.exp(-beat * rng.uniform(20, 40))
    if kind == "drum":
        wave = rng.standard_normal(SAMPLES)
    elif kind == "noise sweep":
        wave = _narrow(300 * 2 ** (rng.uniform(2, 3.2) * (share if rng.random() < 0.5 else 1 - share)), rng)
    else:
        turn = 2 * np.pi * np.cumsum(pitch * 2**bend) / RATE
        decay, top = rng.uniform(0.6, 0.95), int(RATE / 2 / (pitch * 2 ** bend.max()))
        wave = sum((decay**k * np.sin(k * turn) for k in range(1, top + 1)), np.zeros_like(t))
    wave = wave * swell
    return np.asarray(wave / np.abs(wave).max() * 10 ** rng.uniform(-0.5, 0.0))


def _narrow(centre: Floats, rng: np.random.Generator) -> Floats:
    """Noise around a moving frequency, (samples,)."""
    smooth = np.hanning(33)
    slow = [np.convolve(rng.standard_normal(SAMPLES), smooth / smooth.sum(), "same") for _ in range(2)]
    turn = 2 * np.pi * np.cumsum(centre) / RATE
    return np.asarray(slow[0] * np.cos(turn) + slow[1] * np.sin(turn))


@cache
def _stft() -> Any:
    from scipy.signal import ShortTimeFFT  # slow to import, and few need it

    return ShortTimeFFT(np.hanning(WINDOW + 1)[:-1], HOP, RATE, scale_to="magnitude")


@cache
def mel_bands() -> Floats:
    """(bands, frequencies) triangles, evenly spaced in mel from 50 to 4,000 Hz, each of peak 1."""
    low, top = 2595 * np.log10(1 + np.array([50.0, RATE / 2]) / 700)
    mel = np.linspace(low, top, BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    at = np.arange(WINDOW // 2 + 1) * RATE / WINDOW
    # No triangle is narrower than the spacing of frequencies, so that each covers one at least.
    least = RATE / WINDOW
    left, right = np.minimum(edges[:-2], edges[1:-1] - least), np.maximum(edges[2:], edges[1:-1] + least)
    up = (at - left[:, None]) / (edges[1:-1] - left)[:, None]
    down = (right[:, None] - at) / (right - edges[1:-1])[:, None]
    return np.asarray(np.clip(np.minimum(up, down), 0, None))


def _spectrum(waves: Floats) -> NDArray[np.complex128]:
    """(n, frequencies, frames)."""
    return np.asarray(_stft().stft(waves, p0=0, p1=FRAMES))


def spectrograms(waves: Floats) -> Floats:
    """(n, samples) to (n, bands, frames)."""
    power = np.einsum("bf,nft->nbt", mel_bands(), np.abs(_spectrum(waves)) ** 2)
    decibels = 10 * np.log10(np.maximum(power, 1e-12)) + LIFT
    return np.asarray(1 - 2 * np.clip(decibels, FLOOR, 0) / FLOOR)


def _unfolded(power: Floats, rounds: int = 50) -> Floats:
    """(frequencies, frames) of power that the mel bands (bands, frames) may have come from, by Lee and Seung's
    multiplicative updates."""
    bands = mel_bands()
    found = np.full((bands.shape[1], power.shape[1]), power.mean())
    for _ in range(rounds):
        found *= bands.T @ (power / (bands @ found + 1e-12)) / (bands.sum(0)[:, None] + 1e-12)
    return found


def sound(spectrogram: Floats, rounds: int = 32, seed: int = 0) -> Floats:
    """(bands, frames) to (samples,) whose spectrogram is near: Griffin and Lim's alternating projections.

    Source: Griffin and Lim (1984); with the momentum of Perraudin et al., "A Fast Griffin-Lim Algorithm" (2013).
    """
    size = np.sqrt(_unfolded(10 ** (((1 - spectrogram) / 2 * FLOOR - LIFT) / 10)))
    rng = np.random.default_rng(seed)
    guess = size * np.exp(2j * np.pi * rng.random(size.shape))
    before = np.zeros_like(guess)
    for _ in range(rounds):
        wave = _stft().istft(guess, k1=SAMPLES)
        now = _spectrum(wave[None])[0]
        pushed = now + 0.99 * (now - before)
        guess, before = size * np.exp(1j * np.angle(pushed)), now
    return np.asarray(_stft().istft(guess, k1=SAMPLES))
