"""Which of the engine's arithmetic runs compiled? `kernels.c`, built once by the machine's own C compiler.

The library is kept in the cache folder under the hash of its source, its flags and this CPU. Where there is no
compiler, or the CPU has no AVX-512 integer dot products, the torch form of the same layers runs instead;
ANYSTEP_KERNELS=torch asks for that.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
NEEDED = {"avx512f", "avx512bw", "avx512vl", "avx512_vnni", "f16c"}


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where this machine has to do without."""
    flags = cpu_flags()
    if os.environ.get("ANYSTEP_KERNELS") == "torch" or not flags >= NEEDED:
        return None
    try:
        sources = b"".join(file.read_bytes() for file in (SOURCE, *sorted(SOURCE.parent.glob("*.h"))))
        key = hashlib.sha256(sources + repr((FLAGS, sorted(flags))).encode()).hexdigest()[:16]
        path = kernels_folder() / f"kernels-{key}.so"
        if not path.exists():
            built(compiler(), path)
        if not (is_ours(path.parent) and is_ours(path)):
            return None
        found = ctypes.CDLL(str(path))
        for name in ("product", "before_attention", "after_attention", "attend", "normed", "draw", "uniforms"):
            getattr(found, name).restype = None
    except (OSError, RuntimeError, AttributeError, subprocess.SubprocessError):  # no home is a RuntimeError
        return None
    return found


def compiler() -> list[str]:
    """$CC with its arguments, or else cc, gcc or clang. Raises OSError where there is none of them."""
    try:
        asked = shlex.split(os.environ.get("CC", ""))
    except ValueError:  # a quotation without an end
        asked = []
    for command in (asked, ["cc"], ["gcc"], ["clang"]):
        if command and shutil.which(command[0]):
            return command
    raise FileNotFoundError("There is no C compiler.")


def kernels_folder() -> Path:
    """$ANYSTEP_CACHE/kernels, else ~/.cache/anystep/kernels."""
    return Path(os.environ.get("ANYSTEP_CACHE") or Path.home() / ".cache" / "anystep") / "kernels"


def cpu_flags() -> frozenset[str]:
    """What this CPU can do, as Linux tells it; nothing where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), ()))


def built(compiler: list[str], path: Path) -> None:
    """Compiles SOURCE to `path`, which appears whole or not at all. Raises OSError or SubprocessError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        made = Path(scratch) / path.name
        subprocess.run(
            [*compiler, *FLAGS, str(SOURCE), "-o", str(made), "-lm"], check=True, capture_output=True, timeout=120
        )
        made.chmod(0o700)
        made.replace(path)


def is_ours(path: Path) -> bool:
    """Whether nobody else could have written this file, or put one into this folder: code is loaded from it."""
    found = path.stat()
    return found.st_uid == os.getuid() and not found.st_mode & 0o022
