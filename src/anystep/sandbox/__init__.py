"""Is it safe to run what a model wrote?  Programs in processes of their own, contained and limited."""

from anystep.sandbox.boundary import Boundary, boundary
from anystep.sandbox.limits import Limits, Program
from anystep.sandbox.outcome import Outcome
from anystep.sandbox.pool import Sandbox, shared
from anystep.sandbox.session import Session
from anystep.sandbox.throughput import Throughput, throughput

__all__ = [
    "Boundary",
    "Limits",
    "Outcome",
    "Program",
    "Sandbox",
    "Session",
    "Throughput",
    "boundary",
    "shared",
    "throughput",
]
