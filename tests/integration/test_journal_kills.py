"""Runs that are killed at any moment, three lives each under three hash seeds, end as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nursery
from anystep import Run, journal
from anystep.testing.runs import finish

ROOT = Path(__file__).parents[2]


def lives(kind: str, hash_seed: int, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Raise these lives in a process of their own."""
    path = f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "nursery.py"), kind],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": str(hash_seed), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def moments(life: dict[str, Any]) -> int:
    return int(life["log"][-2].removeprefix("moments "))


def on_disk(path: Path) -> int:
    """How many rounds a journal holds; 0 where its first line was not finished."""
    return len(journal.read(path).rounds) if path.exists() and b"\n" in path.read_bytes() else 0


def performed(life: dict[str, Any]) -> list[int]:
    return [int(line.split()[1]) for line in life["log"] if line.startswith("performed ")]


def same_end(one: dict[str, Any], other: dict[str, Any], name: str, exact: bool) -> None:
    """Equal, but for the last digits of a model's floats where not `exact`: read at once or one by one, keys round."""
    for what in ("exact", "family", "ledger"):
        assert one[what] == other[what], f"{name}: {what} {one[what]} is not {other[what]}"
    assert [s[:2] for s in one["scored"]] == [s[:2] for s in other["scored"]], f"{name}: other states were scored"
    sums = [one["sums"] | {"scored": [s[2] for s in one["scored"]]}, other["sums"]]
    sums[1] |= {"scored": [s[2] for s in other["scored"]]}
    for book in sums[0]:
        x, y = (np.asarray(s[book], dtype=np.float64) for s in sums)
        same = np.array_equal(x, y, equal_nan=True) if exact else np.allclose(x, y, rtol=1e-5, equal_nan=True)
        assert same, f"{name}: {book} {x} is not {y}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["oracles", "language"])
def test_a_run_that_is_killed_twice_ends_as_if_nothing_had_happened(kind: str, tmp_path: Path) -> None:
    names = list(nursery.CASES[kind]())
    paths = [tmp_path / f"{i}.journal" for i in range(len(names))]
    whole = lives(kind, 1, [{"case": c, "path": f"{p}.whole", "die": None} for c, p in zip(names, paths, strict=True)])
    u, done = np.random.default_rng(7), [0] * len(names)
    for hash_seed in (2, 3):
        dying = [int(u.integers(moments(w))) for w in whole]
        wanted = [{"case": c, "path": str(p), "die": d} for c, p, d in zip(names, paths, dying, strict=True)]
        for i, life in enumerate(lives(kind, hash_seed, wanted)):
            assert life["killed"] or life["code"] == 0, f"{names[i]}: {life}"
            assert min(performed(life), default=done[i]) >= done[i], f"{names[i]}: a round was done again"
            done[i] = on_disk(paths[i])
    last = lives(kind, 4, [{"case": c, "path": str(p), "die": None} for c, p in zip(names, paths, strict=True)])
    for i, (life, was) in enumerate(zip(last, whole, strict=True)):
        rounds = range(done[i], len(performed(was)))
        assert performed(life) == list(rounds), f"{names[i]}: a round was done twice, or never"
        same_end(life["end"], was["end"], names[i], exact=kind == "oracles")


def test_what_a_fork_concludes_is_what_a_run_here_concludes(tmp_path: Path) -> None:
    case = "mcts on tokens"
    (life,) = lives("oracles", 1, [{"case": case, "path": str(tmp_path / "run.journal"), "die": None}])
    process, method = nursery.oracle_cases()[case]
    here = Run(process, method, seed=5)
    finish(here)
    same_end(life["end"], nursery.concluded(here), case, exact=True)
