"""Row 21: which step of an agent log is decisive, by execution and by a small model that writes cause, correction and
prediction before it answers, against the same model taught the answer alone; and what becomes of the first where its
predictions are exchanged for executions.

Stated time: ten minutes on one quiet core the first time, when both arms are trained from ChainLM (then they are kept),
and one after that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import numpy as np

from anystep.calibrate.interval import wilson
from anystep.experiments._figures import held, paired, table
from anystep.experiments.check import Check, Result
from anystep.language import LanguageProcess, load
from anystep.language.engine.engine import Engine
from anystep.language.train.attribution import Arm, AttributionRecipe, target, tuned
from anystep.process import Floats
from anystep.tasks.agent_logs import AgentLog, Suspect, Turn, executed, logs
from anystep.verify.abduct_act_predict import Attribution, abduct_act_predict, replayed

ROW = 21
LOGS = 600
ARMS: tuple[Arm, ...] = ("a2p", "direct")
LONGEST = 200  # tokens: more than four suspects and an answer take


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    n: int = LOGS,
    recipe: AttributionRecipe | None = None,
    replays: int = 2_000,
) -> Result:
    began = time.perf_counter()
    recipe = replace(recipe or AttributionRecipe(), seed=seed)
    some = list(islice(logs("test", seed), replays))
    differing = sum(replayed(log).step != log.decisive for log in some)
    progress(f"{replays:,} logs attributed by executing them, {time.perf_counter() - began:.0f} s")
    some, found = some[:n], dict[Arm, list[Attribution]]()
    for arm in ARMS:
        engine = load(tuned(replace(recipe, arm=arm), progress))
        found[arm] = abduct_act_predict(some, lambda log, e=engine, a=arm: process(e, a, log))  # type: ignore[misc]
        progress(f"{arm}: {steps(some, found[arm]).mean():.3f} of {n} steps, {time.perf_counter() - began:.0f} s")
    hits = {arm: steps(some, attributions) for arm, attributions in found.items()}
    gain = paired(hits["a2p"], hits["direct"])
    checks = (
        Check(f"of {replays:,} logs, those where replay and brute force name different steps", differing, "==", 0),
        held("accuracy of the step, tuned on the three parts minus tuned on the answer", gain, ">=", 0.10),
        Check("generations a log", max(a.calls for a in found["a2p"]), "==", 1),
    )
    return Result("abduct_act_predict", ROW, checks, time.perf_counter() - began, seed, told(some, found, hits, recipe))


def process(engine: Engine, arm: Arm, log: AgentLog) -> LanguageProcess:
    prompt = target(arm, log)[0]
    return LanguageProcess(engine, prompt, unit="completion", stop=".", max_tokens=LONGEST, temperature=0)


def steps(some: list[AgentLog], found: list[Attribution]) -> Floats:
    """1 where the decisive step was named; naming none is wrong."""
    return np.array([float(a.step == log.decisive) for log, a in zip(some, found, strict=True)])


def told(
    some: list[AgentLog], found: dict[Arm, list[Attribution]], hits: dict[Arm, Floats], recipe: AttributionRecipe
) -> str:
    """Accuracies, what of the scaffold is right, wrong attributions that sound sure, and costs."""
    rows = []
    for arm, attributions in found.items():
        agents = [a.agent == log.turns[log.decisive or 0].agent for log, a in zip(some, attributions, strict=True)]
        tokens = sum(a.cost.tokens + a.cost.cached for a in attributions) / len(some)
        rows.append([arm, wilson(int(hits[arm].sum()), len(some)), wilson(sum(agents), len(some)), f"{tokens:.0f}"])
    others = {
        "first error": [log.errors[0] == log.decisive for log in some],
        "last error": [log.errors[-1] == log.decisive for log in some],
        "a2p, its suspects executed in place of its predictions": [
            _executed(log, a) == log.decisive for log, a in zip(some, found["a2p"], strict=True)
        ],
    }
    rows += [[name, wilson(sum(right), len(some)), "", ""] for name, right in others.items()]
    parts = table(["arm", "step accuracy", "agent accuracy", "tokens a log"], rows)
    suspects = [(log, s) for log, a in zip(some, found["a2p"], strict=True) for s in a.suspects]
    true = [s for log, s in suspects if s.step in log.errors]
    acted = [s for log, s in suspects if s.correction == log.plan[s.step]]
    foreseen = [s for log, s in suspects if s.registers == executed(log, s.step, _turn(log, s))[0]]
    averting = [(log, s) for log, s in suspects if s.averted]
    false = sum(not _averts(log, s) for log, s in averting)
    return (
        f"{parts}\n\nThe arms begin as ChainLM, learn the same single turns and then the same {recipe.logs:,} logs, in "
        f"as many padded tokens ({recipe.warm:,} and {recipe.tokens:,}): the direct arm's texts are shorter, so it "
        f"goes through the logs more often. Of {len(suspects):,} suspects written, {len(true):,} are errors of the "
        f"log, {len(acted):,} are corrected as the plan has it, and {len(foreseen):,} foresee all registers; of "
        f"{len(averting):,} corrections said to avert the failure, executing the log shows {false:,} that do not (the "
        f"false-positive rate of its verdict: {wilson(false, max(1, len(averting)))}). Greedy, one model and one seed; "
        "intervals are 95%, over logs."
    )


def _turn(log: AgentLog, suspect: Suspect) -> Turn:
    return replace(log.turns[suspect.step], instruction=suspect.correction)


def _averts(log: AgentLog, suspect: Suspect) -> bool:
    """Whether the correction that was written, executed with the later turns as they were done, averts the failure."""
    return executed(log, suspect.step, _turn(log, suspect))[1]


def _executed(log: AgentLog, found: Attribution) -> int | None:
    """The first suspect whose correction averts the failure when the log is executed with it."""
    return next((s.step for s in found.suspects if _averts(log, s)), None)
