"""How many short programs a second does the sandbox run? `python benchmarks/sandbox.py [chroot ...]` (1 minute).

One line for each boundary that this machine has, the strongest first, and why it lacks the others. Where other programs
keep the machine busy the figures are lower, save the milliseconds of processor.
"""

from __future__ import annotations

import os
import sys

from anystep.errors import Unsupported
from anystep.sandbox import throughput
from anystep.sandbox.boundary import NAMES


def main(names: list[str]) -> None:
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}")
    for name in names or NAMES:
        try:
            print(throughput(name))
        except Unsupported as problem:
            print(f"{name}: {problem}")


if __name__ == "__main__":
    main(sys.argv[1:])
