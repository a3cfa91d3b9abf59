"""Where trained things are kept: safetensors, and beside them a JSON card with their hash, so that damage is noticed.

What a recipe trains is found again by the hash of the recipe: trained once, then read.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor

from anystep.errors import ModelError


def cache_folder() -> Path:
    """$ANYSTEP_CACHE, else ~/.cache/anystep."""
    return Path(os.environ.get("ANYSTEP_CACHE") or Path.home() / ".cache" / "anystep")


def save(
    tensors: Mapping[str, Tensor],
    record: Mapping[str, Any],
    name: str,
    folder: Path,
    dtype: torch.dtype = torch.bfloat16,
) -> str:
    """Write `folder/name.safetensors`, and `folder/name.json`: `record` with the tensors' hash. Returns it."""
    content = write_tensors({k: v.detach().to(dtype).contiguous() for k, v in tensors.items()})
    found = sha256(content).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / f"{name}.safetensors", content)
    _write(folder / f"{name}.json", (json.dumps(dict(record) | {"sha256": found}, indent=2) + "\n").encode())
    return found


def _write(path: Path, content: bytes) -> None:
    """The whole file or nothing of it, for `kept` takes what is there as done."""
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load(name: str, folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors in float32 and the card; ModelError if they are missing or not what the card says."""
    where = folder / f"{name}.safetensors"
    try:
        content, record = where.read_bytes(), json.loads((folder / f"{name}.json").read_text())
    except (OSError, ValueError) as error:
        near = ", ".join(sorted(p.stem for p in folder.glob("*.safetensors"))) or "none"
        raise ModelError(f"load({name!r}): no readable checkpoint in {folder} (there: {near}): {error}") from error
    found = sha256(content).hexdigest()
    if found != record.get("sha256"):
        raise ModelError(
            f"load({name!r}): {where.name} has sha256 {found[:12]}, its card says {record.get('sha256', '')[:12]}; "
            "the file is damaged or another's: put the right one there, or install anystep again."
        )
    return {k: v.float() for k, v in read_tensors(content).items()}, record


def kept(name: str, told: Any, make: Callable[[str, Path], None]) -> Path:
    """The card `NAME-HASH.json` in the cache folder's `models`; `make(name, folder)` saves it there the first time.

    told: all that decides what is made, as JSON takes it.
    """
    name = f"{name}-{blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=6).hexdigest()}"
    path = cache_folder() / "models" / f"{name}.json"
    if not (path.exists() and path.with_suffix(".safetensors").exists()):
        make(name, path.parent)
    return path
