"""The command's frame: which commands there are, and how every error becomes one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import anystep
from anystep.cli.catalogue import catalogue
from anystep.cli.compare import compare
from anystep.cli.demo import demo
from anystep.cli.measure import measure
from anystep.cli.models import models
from anystep.cli.reproduce import reproduce
from anystep.cli.resume import resume, view
from anystep.cli.sample import sample
from anystep.cli.serve import serve
from anystep.cli.solve import solve
from anystep.errors import AnystepError, Unsupported, UsageError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="anystep",
    help="Spend inference compute where it pays.\n\nAnswers and tables go to standard output, all else to standard "
    "error. Exit codes: 0 with an answer, 1 failed or no answer, 2 usage, 130 interrupted.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"max_content_width": 100, "terminal_width": 100, "help_option_names": ["-h", "--help"]},
)
for command in (solve, resume, view, compare, serve, reproduce, catalogue, models, sample, measure, demo):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"anystep {anystep.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def begin(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(USAGE)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Errors are one line on standard error; `--debug` shows tracebacks."""
    given = list(sys.argv[1:] if args is None else args)
    try:
        code = app(given, standalone_mode=False, prog_name="anystep")
        sys.stdout.flush()
        return code if isinstance(code, int) else OK
    except (BrokenPipeError, SystemExit):  # the reader left, as in `anystep catalogue | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the last flush has where to go
        return FAILED
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in given and not _asked(error):
            raise
        from anystep.view.text import printable

        line, code = explained(error)
        print(f"anystep: {printable(line)}", file=sys.stderr)
        return code


def explained(error: BaseException) -> tuple[str, int]:
    """An error as one line and its exit code."""
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return "interrupted", INTERRUPTED
    if hasattr(error, "format_message"):  # the option parser's own
        context = getattr(error, "ctx", None)
        path = "anystep" if context is None else context.command_path
        return f"{_line(error.format_message()).rstrip('.')}; see `{path} --help`.", USAGE
    if isinstance(error, (UsageError, Unsupported)):
        return _line(error), USAGE
    if isinstance(error, MemoryError):
        return f"out of memory: ask for fewer states at once, as in n=16. {_line(error)}".rstrip(), FAILED
    if isinstance(error, AnystepError):
        return _line(error), FAILED
    return f"{type(error).__name__}: {_line(error)} (this is a defect; --debug shows where)", FAILED


def _asked(error: BaseException) -> bool:
    """Whether it is what the user typed, or did: no traceback helps there."""
    return isinstance(error, KeyboardInterrupt) or hasattr(error, "format_message")


def _line(error: object) -> str:
    return " ".join(str(error).split())
