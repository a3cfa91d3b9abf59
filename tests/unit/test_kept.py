"""What is trained is kept whole, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from anystep import kept
from anystep.errors import ModelError

ONE = {"weight": torch.ones(2, 2)}


def test_a_save_that_dies_leaves_nothing_that_is_taken_as_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either file's writing ends half-way, as on a full disk; the next `kept` makes it anew."""
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    whole = Path.write_bytes
    for dying in (0, 1):
        turns = iter(range(2))

        def half(path: Path, content: Any, turns: Any = turns, dying: int = dying) -> int:
            if next(turns) != dying:
                return whole(path, content)
            whole(path, content[: len(content) // 2])
            raise OSError("No space left on device")

        monkeypatch.setattr(Path, "write_bytes", half)
        with pytest.raises(OSError, match="No space"):
            kept.kept(f"small{dying}", {}, lambda name, folder: kept.save(ONE, {}, name, folder) and None)
        monkeypatch.setattr(Path, "write_bytes", whole)
        card = kept.kept(f"small{dying}", {}, lambda name, folder: kept.save(ONE, {"n": 1}, name, folder) and None)
        tensors, record = kept.load(card.stem, card.parent)
        assert record["n"] == 1 and torch.equal(tensors["weight"], ONE["weight"])
    assert {path.suffix for path in (tmp_path / "models").iterdir()} == {".json", ".safetensors"}


def test_a_card_of_other_bytes_is_a_model_error(tmp_path: Path) -> None:
    kept.save(ONE, {}, "small", tmp_path)
    (tmp_path / "small.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="no readable checkpoint"):
        kept.load("small", tmp_path)
