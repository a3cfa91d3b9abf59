"""Through a server, by requests, retries and cuts, a method's law is what it is anywhere: against enumeration."""

from __future__ import annotations

from collections import Counter

import numpy as np

from anystep import Run, drive, search
from anystep.language.endpoint import Endpoint, EndpointProcess
from anystep.process import potential
from anystep.testing import assert_law
from anystep.testing.server import Break, FakeServer, Request, Toy, busy

RUNS, PARTICLES, SAMPLES = 40, 12, 400


async def at_once(seconds: float) -> None:
    """Takes the clock's place between attempts."""


def troubled(request: Request) -> Break | None:
    """Breaks one stream in six after a token, and refuses one request in ten."""
    if request.get("max_tokens", 1) == 1:
        return None  # a probe
    return Break(after=1) if request.number % 6 == 5 else busy() if request.number % 10 == 9 else None  # type: ignore[return-value]


def test_samples_follow_the_model_s_law_though_the_server_breaks() -> None:
    """Chi-square of 400 samples; a right law is rejected once in a million times."""
    with FakeServer(faults=troubled) as server, Endpoint(server.url, sleep=at_once, retries=20) as endpoint:
        run = Run(EndpointProcess(endpoint, "Which letters?"), search.self_consistency(n=SAMPLES), seed=11)
        drive(run)
        assert run.answer is not None and run.answer.population is not None and run.answer.failed == 0
        assert_law(run.answer.population.states.texts(), Toy().outputs())


def test_a_particle_filter_s_posterior_and_evidence_are_exact_in_the_mean() -> None:
    """Steps of the reply up to an α, tilted toward β: over 40 filters the mean of evidence x weight(x) is the exact
    joint p(x) exp(potential(x)), |z| < 5 for every output seen five times or more, and so is the sum over all."""
    tilt = potential(lambda states: [0.8 * text.count("β") for text in states.texts()], "betas")
    law = {text: float(p) for text, p in Toy().outputs().items()}
    joint = {text: p * np.exp(0.8 * text.count("β")) for text, p in law.items()}
    with FakeServer() as server, Endpoint(server.url) as endpoint:
        process = EndpointProcess(endpoint, "Which letters?", unit="step", stop="α", logprobs=True)
        method = search.particle_filter(n=PARTICLES, potential=tilt)
        runs = [Run(process, method, seed=seed) for seed in range(RUNS)]
        drive(*runs)
        found, seen = [], Counter[str]()
        for run in runs:
            answer = run.answer
            assert answer is not None and answer.population is not None and answer.evidence is not None
            texts = answer.population.states.texts()
            assert np.allclose(np.exp(answer.population.logp), [law[text] for text in texts])
            mass = Counter[str]()
            for text, weight in zip(texts, answer.population.weights.tolist(), strict=True):
                mass[text] += np.exp(answer.evidence) * weight
            seen.update(set(texts))
            found.append(mass)
        assert sum(run.spent.prompt for run in runs) + endpoint.probes.spent.prompt >= server.counts.prompt
    total = np.array([sum(mass.values()) for mass in found])
    assert abs(_z(total, sum(joint.values()))) < 5
    often = [text for text, times in seen.items() if times >= 5]
    assert len(often) >= 5
    for text in often:
        assert abs(_z(np.array([mass[text] for mass in found]), joint[text])) < 5, text


def _z(values: np.ndarray, exact: float) -> float:
    return float((values.mean() - exact) / (values.std(ddof=1) / np.sqrt(len(values))))
