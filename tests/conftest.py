"""What every test shares: one thread for torch, and property tests that are the same on every run."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator

# Read when torch is first imported, so that tests which never need torch do not pay for importing it here.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Hold torch to one thread where it is loaded: sums then have one order, and two cores serve two jobs."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    yield


def pytest_report_header() -> str:
    extras = {name: name.replace("-", "_") for name in ("reasoning-gym", "math-verify", "transformers", "xllamacpp")}
    missing = [name for name, module in extras.items() if importlib.util.find_spec(module) is None]
    return "extras missing: " + ", ".join(missing) if missing else "extras: all here"
