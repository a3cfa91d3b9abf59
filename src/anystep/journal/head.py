"""The records of a journal that are no rounds: whose it is, where it went on, and how it ended."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anystep.answer import AllFailed
from anystep.errors import JournalError, UsageError
from anystep.journal.codec import cost_of, cost_record, floats, number
from anystep.ledger import Budget, Cost
from anystep.run import Run

FORMAT, VERSION = "anystep.journal", 1


def head(run: Run, recipe: Mapping[str, Any] | None) -> dict[str, Any]:
    """Whose journal it is. recipe: what else it takes to make the run again, by names."""
    return {
        "kind": "head",
        "format": FORMAT,
        "version": VERSION,
        "anystep": _version(),
        "at": _now(),
        **_identity(run),
        "budget": run.ledger.budget.caps(),
        "recipe": None if recipe is None else dict(recipe),
    }


def resumed(run: Run) -> dict[str, Any]:
    """That a run goes on in another process, perhaps under another budget."""
    return {"kind": "resumed", "anystep": _version(), "at": _now(), "budget": run.ledger.budget.caps()}


def end(run: Run) -> dict[str, Any]:
    """How a run ended: the answer, or why there is none, and the ledger."""
    answer, spent = run.answer, run.ledger.spent
    ids = None if answer is None or answer.population is None or answer.row is None else answer.population.id
    return {
        "kind": "end",
        "answer": None if answer is None or answer.value is None else str(answer.value),
        "text": None if answer is None else answer.text,
        "node": None if answer is None or ids is None else int(ids[answer.row or 0]),
        "support": None if answer is None or answer.support is None else number(answer.support),
        "confidence": None if answer is None or answer.confidence is None else number(answer.confidence),
        "evidence": None if answer is None or answer.evidence is None else number(answer.evidence),
        "stopped_because": "failed" if answer is None else answer.stopped_because,
        "started": run.books.started,
        "finished": run.finished,
        "failed": 0 if answer is None else answer.failed,
        "errors": [str(run.error)] if answer is None else [str(e) for e in answer.errors],
        "note": "" if answer is None else answer.note,
        "cost": cost_record(spent),
        "costs": {by: cost_record(cost) for by, cost in run.ledger.by.items()},
    }


def costs_of(record: Mapping[str, Any]) -> tuple[Cost, dict[str, Cost]]:
    """What a run that ended had cost, in all and by whom it was for."""
    return cost_of(record["cost"]), {by: cost_of(cost) for by, cost in record["costs"].items()}


def ends(run: Run) -> bool:
    """Whether a run has come to an end that resuming cannot better: a defect in a method is none."""
    return run.answer is not None or isinstance(run.error, AllFailed)


def check_head(record: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The first record of a file, if it is a head that this version reads. Raises JournalError."""
    version = record.get("version")
    if record.get("kind") != "head" or record.get("format") != FORMAT or not isinstance(version, int):
        raise JournalError(f"{path}, line 1: this is no journal.")
    if version > VERSION:
        by = f"{record.get('anystep')!r:.40}"
        raise JournalError(
            f"{path}: written in format {version} by anystep {by}; this one reads up to {VERSION}: update anystep."
        )
    process = record.get("process")
    whole = isinstance(process, dict) and all(isinstance(process.get(k), str) for k in ("name", "kind", "settings"))
    texts = all(isinstance(record.get(k), str) for k in ("method", "decision", "anystep", "at"))
    seed, reserve, recipe = record.get("seed"), record.get("reserve"), record.get("recipe")
    numbers = isinstance(seed, int) and isinstance(reserve, (int, float)) and 0 <= reserve <= 1
    numbers &= not isinstance(seed, bool) and not isinstance(reserve, bool)
    whole &= {"recipe", "budget"} <= set(record)
    if not (whole and texts and numbers and (recipe is None or isinstance(recipe, dict))):
        raise JournalError(f"{path}, line 1: this head says too little; it was not written by anystep.")
    budget_of(record, path, 1)
    return dict(record)


def check_run(record: Mapping[str, Any], run: Run, path: Path) -> None:
    """JournalError where a run is another than the one whose head this is."""
    mine = _identity(run)
    for what in mine:
        theirs, ours = record[what], mine[what]
        if theirs != ours:
            if isinstance(ours, dict):
                what, theirs, ours = next(
                    (f"{what} {k}", theirs.get(k), v) for k, v in ours.items() if theirs.get(k) != v
                )
            raise JournalError(
                f"{path} belongs to another run: its {what} is {_short(theirs)}, not {_short(ours)}. "
                "Name another file, or make the run as it was."
            )


def check_end(record: Mapping[str, Any]) -> None:
    """JournalError for an end that a reader could trip over."""
    texts, counts = ("stopped_because", "note"), ("started", "finished", "failed")
    whole = {"answer", "text", "node", "support", "evidence", "cost"} <= set(record)
    whole &= all(isinstance(record.get(k), str) for k in texts) and all(isinstance(record.get(k), int) for k in counts)
    whole &= all(record.get(k) is None or isinstance(record[k], str) for k in ("answer", "text"))
    whole &= record.get("node") is None or isinstance(record["node"], int)
    errors, costs = record.get("errors"), record.get("costs")
    whole &= isinstance(errors, list) and all(isinstance(error, str) for error in errors)
    if not whole or not isinstance(costs, dict):
        raise JournalError("an end that says too little")
    for cost in (record.get("cost"), *costs.values()):
        cost_of(cost)
    for name in ("support", "confidence", "evidence"):
        if record.get(name) is not None:
            floats([record[name]], 1)


def budget_of(record: Mapping[str, Any], path: Path, line: int) -> Budget:
    """The budget that a head or a resumption names."""
    caps = record.get("budget")
    try:
        return Budget(**caps)  # type: ignore[arg-type]
    except (TypeError, UsageError) as error:
        raise JournalError(f"{path}, line {line}: no budget: {' '.join(str(error).split())}") from None


def _identity(run: Run) -> dict[str, Any]:
    """What must be equal for a journal to be replayed: all but the budget."""
    process = run.process
    return {
        "process": {"name": process.name, "kind": type(process).__name__, "settings": process.settings()},
        "method": repr(run.method),
        "decision": repr(run.method.decision),
        "seed": int(run.seed),
        "reserve": float(run.reserve),
    }


def _short(what: Any) -> str:
    text = repr(what)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _version() -> str:
    return str(getattr(sys.modules.get("anystep"), "__version__", "unknown"))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
