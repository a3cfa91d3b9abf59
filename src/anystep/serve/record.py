"""What a response tells beside its choices: OpenAI's `usage`, and everything of ours under `anystep`."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from anystep.ledger import Cost
from anystep.process import Stepped

if TYPE_CHECKING:
    from anystep.run import Run
    from anystep.serve.job import Job


def usage(job: Job) -> dict[str, Any]:
    """What has been paid so far, by the model and by everything that judged for it, failed and cancelled work too.

    The prompt counts once, however many samples share it; `cached_tokens` says how much of it was found in the cache,
    and free. So prompt_tokens - cached_tokens + completion_tokens is what a token budget counts.
    """
    spent = job.run.spent
    found = cached(job)
    return {
        "prompt_tokens": spent.prompt + found,
        "completion_tokens": spent.generated,
        "total_tokens": spent.prompt + found + spent.generated,
        "prompt_tokens_details": {"cached_tokens": found},
    }


def billed(told: dict[str, Any], job: Job | None) -> dict[str, Any]:
    """An error object with the usage beside it, where work had been paid before it failed."""
    if job is not None and job.run.spent.tokens:
        return {**told, "usage": usage(job)}
    return told


def cached(job: Job) -> int:
    """Tokens of the request's prompt that were in the cache when it was first read."""
    run = job.run
    for told in run.journal:
        read = [r.cost for r in told.replies if isinstance(r, Stepped) and r.cost.prompt + r.cost.cached]
        if read:
            return max(0, job.prompt_tokens - sum(cost.prompt for cost in read))
    own = run.ledger.by.get(run.process.name, Cost())  # its first step is still under way
    return max(0, job.prompt_tokens - own.prompt) if own.prompt + own.cached else 0


def anystep(job: Job) -> dict[str, Any]:
    """How the answer came about: what a client that asks for a method wants to know. What is not known is null."""
    run, answer = job.run, job.run.result()
    evidence = answer.evidence
    return {
        "method": job.method,
        "seed": run.seed,
        "stopped_because": answer.stopped_because,
        "answer": None if job.plain or answer.value is None else str(answer.value),
        "support": answer.support,
        "confidence": answer.confidence,
        "evidence": evidence if evidence is not None and math.isfinite(evidence) else None,
        "started": run.books.started,
        "finished": run.finished,
        "failed": answer.failed,
        "errors": list(answer.errors),
        "note": answer.note,
        "cost": costed(run.spent),
        "costs": {by: costed(cost) for by, cost in run.ledger.by.items()},
    }


def costed(cost: Cost) -> dict[str, Any]:
    return {**asdict(cost), "tokens": cost.tokens}


def progress(run: Run) -> dict[str, Any]:
    """How far a run is."""
    return {
        "tokens": run.spent.tokens,
        "seconds": round(run.spent.seconds, 3),
        "states": len(run.books.family),
        "started": run.books.started,
        "finished": run.finished,
    }
