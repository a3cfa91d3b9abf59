"""Journals on disk: what a crash leaves, what damage is told, who may write, and where nothing may be written."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anystep import Budget, Process, Run, UsageError, drive, journal, search
from anystep.errors import JournalError
from anystep.journal import beside, lines
from anystep.journal.lines import Appender, checksum
from anystep.procedure import Method
from anystep.stepwise import Arrays, Moved, Stepwise
from anystep.testing.oracles import EnumerableLM, HiddenMarkov, JudgeReward
from anystep.testing.runs import finish, same_outcome

LM = EnumerableLM(length=4)
METHOD = search.mcts(JudgeReward(lambda s: s.size / 5, "judge"), rounds=3, branch=2)


def kept(path: Path, method: Method = METHOD, process: Process = LM, **options: Any) -> Run:
    """A run to its end, its journal at `path`."""
    run = Run(process, method, journal=journal.open(path), **options)
    finish(run)
    return run


def resummed(raw: list[bytes]) -> bytes:
    """Lines with checksums that hold, as someone who means harm would write them."""
    found, before = [], ""
    for line in raw:
        payload = line[17:].rstrip(b"\n")
        before = checksum(before, payload)
        found.append(before.encode() + b" " + payload + b"\n")
    return b"".join(found)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.journal"


def test_a_head_says_whose_it_is_and_an_end_how_it_went(path: Path) -> None:
    run = kept(path, seed=3, budget=Budget(tokens=500))
    story = journal.read(path)
    assert story.head["process"] == {"name": "enumerable-lm", "kind": "EnumerableLM", "settings": ""}
    assert story.head["method"] == repr(METHOD) and story.head["seed"] == 3 and story.budget == Budget(tokens=500)
    assert len(story.rounds) == run.rounds and story.end is not None and not story.torn
    assert run.answer is not None and story.end["text"] == run.answer.text
    assert {by: c.tokens for by, c in story.costs().items()} == {by: c.tokens for by, c in run.ledger.by.items()}


def test_a_torn_last_line_is_dropped_and_cut_off(path: Path) -> None:
    whole = kept(path)
    data = path.read_bytes()
    starts = [0, *(i + 1 for i, byte in enumerate(data) if byte == 10)]
    for i, (at, end) in enumerate(zip(starts[1:-1], starts[2:], strict=True)):
        for torn in {at + 1, (at + end) // 2, end - 1}:
            path.write_bytes(data[:torn])
            story = journal.read(path)
            assert story.torn and len(story.rounds) == i and path.read_bytes() == data[:torn]
            run = journal.resume(path, LM, METHOD)
            assert run.rounds == i
            assert path.read_bytes() == data[:at] or not run.calls  # then its end is written anew
            finish(run)
            same_outcome(whole, run, f"a line torn at byte {torn}")


def test_damage_anywhere_else_names_its_line(path: Path) -> None:
    kept(path)
    data = path.read_bytes()
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        at = data.index(line)
        for place in (0, 16, 20, len(line) // 2, len(line) - 2):
            bad = bytearray(data)
            bad[at + place] ^= 4
            path.write_bytes(bytes(bad))
            for use in (journal.read, journal.open):
                with pytest.raises(JournalError, match=rf"run\.journal, line {number}: "):
                    use(path)
            assert path.read_bytes() == bytes(bad)  # looked at, and left alone


def test_a_line_that_is_missing_or_moved_is_noticed(path: Path) -> None:
    kept(path)
    raw = path.read_bytes().splitlines(keepends=True)
    for wrong in (raw[:3] + raw[4:], raw[:3] + [raw[4], raw[3]] + raw[5:], raw[:3] + [raw[3]] + raw[3:]):
        path.write_bytes(b"".join(wrong))
        with pytest.raises(JournalError, match="its checksum does not hold"):
            journal.read(path)


def edited(path: Path, number: int, **changes: Any) -> None:
    """Changes one line's record, its checksums holding."""
    raw = path.read_bytes().splitlines(keepends=True)
    record = json.loads(raw[number - 1][17:])
    raw[number - 1] = raw[number - 1][:17] + json.dumps(record | changes).encode() + b"\n"
    path.write_bytes(resummed(raw))


def test_a_newer_format_is_refused_by_name(path: Path) -> None:
    kept(path)
    edited(path, 1, version=7, anystep="9.9")
    for use in (journal.read, journal.open):
        with pytest.raises(JournalError, match="format 7 by anystep '9.9'; this one reads up to 1: update"):
            use(path)


def test_what_is_no_journal_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    for i, content in enumerate((b"# Readme\n", b"no newline", b"\0" * 5000, b'{"kind": "head"}\n', b"ab")):
        path = tmp_path / str(i)
        path.write_bytes(content)
        for use in (journal.read, journal.open, journal.existing):
            with pytest.raises(JournalError, match="no journal"):
                use(path)
        assert path.read_bytes() == content
    for use in (journal.read, journal.open):
        with pytest.raises(JournalError, match="cannot be"):
            use(tmp_path)
    with pytest.raises(JournalError, match="there is no such journal"):
        journal.resume(tmp_path / "nowhere", LM, METHOD)


def test_a_first_line_that_was_being_written_is_begun_again(path: Path) -> None:
    kept(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:60])
    kept(path)
    assert len(journal.read(path).rounds) and journal.read(path).end is not None


OTHERS: dict[str, dict[str, Any]] = {
    "process name": {"process": EnumerableLM(length=4, name="another")},
    "process kind": {"process": HiddenMarkov(name="enumerable-lm")},
    "method": {"method": search.sample(n=3)},
    "decision": {"method": METHOD.deciding(search.majority)},
    "seed": {"seed": 1},
    "reserve": {"reserve": 0.5},
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_run_is_refused_and_the_journal_left_alone(path: Path, what: str) -> None:
    kept(path)
    before = path.read_bytes()
    options = {"process": LM, "method": METHOD} | OTHERS[what]
    with journal.open(path) as mine, pytest.raises(JournalError, match=f"belongs to another run: its {what} is"):
        Run(journal=mine, **options)
    assert path.read_bytes() == before


def test_a_process_that_says_its_settings_is_known_by_them(path: Path) -> None:
    truncated = search.truncate(LM, 2)
    kept(path, search.sample(n=2), truncated)
    with pytest.raises(JournalError, match="process settings"):
        journal.resume(path, search.truncate(LM, 3), search.sample(n=2))


def test_a_round_that_answers_something_else_is_refused(path: Path) -> None:
    kept(path)
    record = json.loads(path.read_bytes().splitlines()[2][17:])
    record["replies"][0]["by"] = "somebody"
    edited(path, 3, **record)
    with pytest.raises(UsageError, match="tells step by somebody where mcts waits for step by enumerable-lm"):
        journal.resume(path, LM, METHOD)


def test_a_run_cannot_write_past_rounds_that_it_has_not_been_through(path: Path) -> None:
    first = kept(path)
    before = path.read_bytes()
    with journal.open(path) as mine:
        with pytest.raises(UsageError, match="has not been through"):
            drive(Run(LM, METHOD, journal=mine))
        with pytest.raises(UsageError, match="journal of a run already"):
            Run(LM, METHOD, journal=mine)
    assert path.read_bytes() == before and first.rounds == len(journal.read(path).rounds)


HOLDER = """
import sys
from anystep import journal
with journal.open(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_cannot_write_one_journal_but_anyone_may_read(path: Path) -> None:
    kept(path)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert holder.stdin is not None and holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        assert journal.locked(path)
        with pytest.raises(JournalError, match="another process is writing this journal; wait for it, or look with"):
            journal.open(path)
        assert journal.read(path).end is not None
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()
    assert not journal.locked(path)
    journal.open(path).close()


def test_a_full_disk_ends_the_run_and_keeps_what_was_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, written = kept(path.with_name("whole")), 0
    true_write = lines._write

    def full(file: int, data: bytes) -> None:
        nonlocal written
        written += 1
        if written == 5:
            os.write(file, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        true_write(file, data)

    monkeypatch.setattr(lines, "_write", full)
    with pytest.raises(JournalError, match="cannot be written: No space left on device; the run can be resumed"):
        drive(Run(LM, METHOD, journal=journal.open(path)))
    monkeypatch.undo()
    assert len(journal.read(path).rounds) == 3 and not journal.read(path).torn
    run = journal.resume(path, LM, METHOD)
    finish(run)
    same_outcome(whole, run, "a full disk")


@dataclass(frozen=True, eq=False)
class Numbers(Arrays):
    """x: (n, 100000). t: (n,)."""

    x: Any
    t: Any


class Wide(Stepwise):
    """States of 100,000 numbers that do not compress."""

    name, horizon, logp, states = "wide", 2, "mass", Arrays

    def forward(self, rows: Any) -> Any:
        return rows

    def begin(self, keys: Any) -> Any:
        return Numbers(np.zeros((len(keys), 100_000)), np.zeros(len(keys), np.int64))

    def advance(self, states: Any, keys: Any) -> Moved:
        x = np.random.default_rng(int(keys[0])).random(states.x.shape)
        status = np.where(states.t + 1 == 2, np.int8(1), np.int8(0))
        return Moved(Numbers(x, states.t + 1), status, np.zeros(len(keys)), np.zeros(len(keys)))

    def answers(self, states: Any) -> Any:
        return tuple(row.sum() for row in states.x)

    def load(self, data: bytes) -> Any:
        return Numbers.load(data)


def test_large_states_stand_beside_the_journal_by_their_hash(path: Path) -> None:
    method = search.beam(width=1, reward=JudgeReward(lambda s: s.t / 9, "judge"), branch=1)
    whole = kept(path, method, Wide())
    folder = path.with_name("run.journal.states")
    files = sorted(folder.iterdir())
    assert len(files) == 2 and all(len(f.name) == 64 for f in files)  # the empty start is small
    assert path.stat().st_size < beside.LARGE
    raw = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(raw[:-2]))
    run = journal.resume(path, Wide(), method)
    finish(run)
    same_outcome(whole, run, "states from beside")
    files[0].write_bytes(b"else")
    files[1].unlink()
    with pytest.raises(JournalError, match=r"run\.journal, line \d+: .*(damaged|missing)"):
        journal.resume(path, Wide(), method)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "A" * 64, "0" * 63, "", 7, None, "0" * 64 + "\n"])
def test_a_name_that_is_no_hash_leads_nowhere(tmp_path: Path, name: Any) -> None:
    with pytest.raises(JournalError):
        beside.Beside(tmp_path / "run.journal").fetch({"bytes": 3, "sha256": name})


def test_a_folder_of_states_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "run.journal.states").symlink_to(elsewhere)
    store = beside.Beside(tmp_path / "run.journal")
    with pytest.raises(JournalError, match="is a link"):
        store.keep(np.random.default_rng(0).bytes(200_000))
    assert not list(elsewhere.iterdir())


def test_lines_are_whole_when_the_appender_returns(path: Path) -> None:
    first = Appender(path)
    first.append({"kind": "head", "n": 1})
    assert path.read_bytes().count(b"\n") == 1
    first.close()
    with pytest.raises(JournalError, match="was closed"):
        first.append({"n": 2})


def test_of_what_is_on_the_disk_nothing_is_held_in_memory(path: Path) -> None:
    run = kept(path, search.sample(n=2))
    mine = run.journal
    assert isinstance(mine, journal.FileJournal)
    held = [v for v in vars(mine).values() if isinstance(v, (list, tuple, bytes))]
    assert held == [] and len(list(mine)) == run.rounds
