"""`anystep sample` as it is typed: a path on standard output, the cost on standard error, one line for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anystep.cli import main


def test_a_picture_and_its_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "digits.png"
    typed = f"sample digits --steps 4 --class 3 -n 16 --solver dpmpp2m --guidance 2 --out {out} --show"
    assert main(typed.split()) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(out) and out.read_bytes().startswith(b"\x89PNG")
    assert "8 NFE a sample, 128 evaluations in 4 calls" in said.err and "█" in said.err


def test_json_says_what_was_done_and_the_same_seed_draws_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, other = (tmp_path / f"{name}.png" for name in "abc")
    for out, seed in ((first, 0), (second, 0), (other, 1)):
        typed = f"sample digits-epsilon -n 4 --steps 2 --class 1,2 --solver heun --out {out} --json -q --seed {seed}"
        assert main(typed.split()) == 0
        said = capsys.readouterr()
        record = json.loads(said.out)
        assert (record["path"], record["nfe"], record["class"], said.err) == (str(out), 3.0, [1, 2], "")
        assert record["cost"]["evaluations"] == 12
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("sample digit", "digits, digits-epsilon"),
        ("sample digits --class ten", "--class 3"),
        ("sample digits --class 10", "from 0 to 9"),
        ("sample digits --guidance 2", "--class 3 -n 16 --guidance 2"),
        ("sample digits --guidance nan --class 3", "guidance"),
        ("sample digits --solver newton", "--solver dpmpp2m"),
        ("sample digits -n 0", "from 1"),
        ("sample digits --steps 0", "1 or more"),
        ("sample digits --out digits.jpg", "--out digits.png"),
        ("sample digits --out /dev/null/x.png", "no folder"),
        ("sample mnist --report here", "anystep sample digits --report"),
    ],
)
def test_bad_input_is_one_line_with_the_call_that_was_meant(
    typed: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(typed.split()) == 2
    said = capsys.readouterr()
    assert said.out == "" and meant in said.err and len(said.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
