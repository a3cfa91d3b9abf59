"""What does one type? The command `anystep`: solve, resume, view, compare, reproduce, catalogue, models, demo."""

from anystep.cli.app import app, main

__all__ = ["app", "main"]
