"""Which step made a run of agents fail? Abduct the cause of each suspect step, act to correct it, predict what follows.

Source: "Abduct, Act, Predict: Scaffolding Causal Inference for Automated Failure Attribution in Multi-Agent Systems"
(2025), arXiv 2509.10401. There a large model is prompted; here a small one is tuned on the same three parts, written
before the answer, so that a model without hidden reasoning can use them. The paper looks three to five turns ahead, the
scaffold here to the end of the log, which is four at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from anystep.drive import drive
from anystep.ledger import Budget, Cost
from anystep.run import Run
from anystep.search.sample import sample
from anystep.tasks.agent_logs import AgentLog, Suspect, attributed, by_replay, read


@dataclass(frozen=True)
class Attribution:
    """The step held responsible, its agent, the reasoning, the text that said so, and what it cost.

    step: None where nothing was named. calls: how many generations it took.
    """

    step: int | None
    agent: str | None
    suspects: tuple[Suspect, ...]
    text: str
    cost: Cost
    calls: int


def replayed(log: AgentLog) -> Attribution:
    """The attribution that does not guess: suspects from the plan, and the log executed again with each corrected.

    Its step is the one that trying every step finds (`AgentLog.decisive`), on every log; it needs the plan and a log
    that can be executed, and costs nothing.
    """
    suspects = by_replay(log)
    step = suspects[-1].step if suspects and suspects[-1].averted else None
    agent = None if step is None else log.turns[step].agent
    return Attribution(step, agent, suspects, "".join(f"{s}\n" for s in suspects), Cost(), 0)


def abduct_act_predict(
    logs: Sequence[AgentLog],
    make: Callable[[AgentLog], Any],
    budget: Budget | None = None,
    seed: int = 0,
) -> list[Attribution]:
    """Attribute each log's failure with a model, in one generation a log, all in shared batches.

    logs: what happened. make: the process that answers a log, such as `lambda log: LanguageProcess(engine,
    log.prompt(), unit="completion", stop=".", temperature=0)` over a model that `language.train.attribution.tuned`
    trained; of another model the last `#3C` in its text counts. budget: of each log.

    Preserves nothing: the model's prediction is a guess, and `replayed` the exact answer where a log can be executed.
    A text that names no step has `step` None, as has one that the budget cut short; it is never counted as a guess.
    Raises what the runs raise.
    """
    runs = [Run(make(log), sample(n=1), budget, seed) for log in logs]
    drive(*runs)
    found = []
    for log, run in zip(logs, runs, strict=True):
        answer = run.result()
        text = answer.text or ""
        named = attributed(text) if answer.finished else None
        step, agent = (int(named[1]), named[2]) if named else (None, None)
        found.append(Attribution(step, agent, read(log, text), text, answer.cost, answer.started))
    return found
