"""Whatever happened to a journal, reading, viewing and resuming it ends well or in an error of one line; no answer is
ever wrong."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import toy_adder
from anystep import Budget, Run, journal, search
from anystep.cli import main
from anystep.errors import AnystepError
from anystep.journal.lines import checksum
from anystep.testing.oracles import EnumerableLM, JudgeReward
from anystep.testing.runs import finish, outcome

LM = EnumerableLM(length=4, expands=True)
METHOD = search.mcts(JudgeReward(lambda s: s.size / 5, "judge"), rounds=4, branch=2)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, Any]]:
    """A journal with everything in it (a refusal, a second life, an end), and what its run concluded."""
    path = tmp_path_factory.mktemp("journal") / "run.journal"
    finish(Run(LM, METHOD, Budget(evaluations=12), journal=journal.open(path)))
    run = journal.resume(path, LM, METHOD, Budget(evaluations=1000))
    finish(run)
    found = outcome(run)
    found.pop("cost")
    return path.read_bytes(), found


def bytes_flipped(data: bytes, u: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(u.choice([1, 1, 1, 2, 8])):
        found[u.randrange(len(found))] ^= 1 << u.randrange(8)
    return bytes(found)


def cut_short(data: bytes, u: random.Random) -> bytes:
    return data[: u.randrange(len(data))]


def pieces_moved(data: bytes, u: random.Random) -> bytes:
    a, b = sorted(u.randrange(len(data)) for _ in range(2))
    return u.choice([data[:a] + data[b:], data[:b] + data[a:b] + data[b:], data[:a] + u.randbytes(9) + data[a:]])


def records_edited(data: bytes, u: random.Random) -> bytes:
    """By someone who knows the format: one value of one record is another, and every checksum holds."""
    raw = [json.loads(line[17:]) for line in data.splitlines()]
    place: Any = raw[u.randrange(len(raw))]
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = u.choice(keys)
        if isinstance(place[key], (dict, list)) and place[key] and u.random() < 0.8:
            place = place[key]
            continue
        values = [None, -1, 0, 7, 1 << 70, 1.5, "x", "nan", [], {}, [[]], True, "\x1b[2J\u202e", {"a": {}}]
        if isinstance(place, dict) and u.random() < 0.3:
            del place[key]
        else:
            place[key] = u.choice(values)
        break
    return summed(raw)


def summed(records: list[Any]) -> bytes:
    found, before = [], ""
    for record in records:
        payload = json.dumps(record).encode()
        before = checksum(before, payload)
        found.append(before.encode() + b" " + payload + b"\n")
    return b"".join(found)


def records_moved(data: bytes, u: random.Random) -> bytes:
    raw = [json.loads(line[17:]) for line in data.splitlines()]
    u.choice([lambda: raw.pop(u.randrange(len(raw))), lambda: raw.insert(0, raw.pop()), lambda: u.shuffle(raw)])()
    return summed(raw)


HARMS: list[Callable[[bytes, random.Random], bytes]] = [bytes_flipped, cut_short, pieces_moved]
EDITS: list[Callable[[bytes, random.Random], bytes]] = [records_edited, records_moved]


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Errors of ours, in one line, are all that may come."""
    try:
        yield
    except AnystepError as error:
        assert "\n" not in str(error).strip() and str(error)


@pytest.mark.parametrize("harm", HARMS, ids=lambda f: f.__name__)
def test_a_harmed_journal_is_an_error_or_the_same_answer(
    harm: Callable[..., bytes], written: tuple[bytes, dict[str, Any]], tmp_path: Path
) -> None:
    data, wanted = written
    u, path, resumed = random.Random(harm.__name__), tmp_path / "run.journal", 0
    for _ in range(40):
        path.write_bytes(harm(data, u))
        with one_line():
            journal.read(path)
        with one_line():
            run = journal.resume(path, LM, METHOD, Budget(evaluations=1000))
            finish(run)
            found = outcome(run)
            found.pop("cost")
            assert found == wanted
            resumed += 1
    assert resumed or harm is not cut_short


@pytest.mark.parametrize("harm", EDITS, ids=lambda f: f.__name__)
def test_a_forged_journal_is_an_error_or_a_run(
    harm: Callable[..., bytes], written: tuple[bytes, dict[str, Any]], tmp_path: Path
) -> None:
    """Checksums are no signatures: a forger can write another history, but nothing that breaks its reader."""
    u, path = random.Random(harm.__name__), tmp_path / "run.journal"
    for _ in range(100):
        path.write_bytes(harm(written[0], u))
        with one_line():
            journal.read(path)
        with one_line():
            finish(journal.resume(path, LM, METHOD))


def heads_edited(data: bytes, u: random.Random) -> bytes:
    """As `records_edited`, in the first record: what is needed to make the run again."""
    first, rest = data.split(b"\n", 1)
    while (found := records_edited(first + b"\n", u)) == first + b"\n":
        pass
    return summed([json.loads(line[17:]) for line in (found + rest).splitlines()])


@pytest.mark.parametrize("harm", [*HARMS, *EDITS, heads_edited], ids=lambda f: f.__name__)
def test_the_commands_say_one_line(
    harm: Callable[..., bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """204 journals that the command wrote, each then harmed in another way."""
    toy_adder.install(monkeypatch)
    u, path = random.Random(harm.__name__), tmp_path / "run.journal"
    ask = ["solve", "--task", "sums", "--item", "1", "--model", "adder", "--method", "mcts(reward=right, rounds=3)"]
    assert main([*ask, "--tokens", "60", "--journal", str(path)]) in (0, 1)
    data = path.read_bytes()
    capsys.readouterr()
    for _ in range(34):
        path.write_bytes(harm(data, u))
        for args in (["view", str(path)], ["view", str(path), "--json"], ["resume", str(path), "--tokens", "100"]):
            code = main(args)
            out, err = capsys.readouterr()
            assert code in (0, 1, 2) and "defect" not in err, (args, err)
            assert "\x1b" not in out + err and "\u202e" not in out + err, (args, out, err)
            assert out or err.splitlines()[-1].startswith("anystep: ") or "no answer" in err, (args, err)
            assert args[0] == "resume" or bool(out) != bool(err), (args, out, err)
