"""`anystep serve`: the models as a server that OpenAI's clients can talk to."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from anystep.cli import options as o
from anystep.errors import UsageError


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model to serve, as `anystep models` lists or NAME=PATH; repeatable."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; beyond this machine only with a key.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.")] = 8000,
    key: Annotated[
        str | None, typer.Option(envvar="ANYSTEP_KEY", help="What callers must send as `Authorization: Bearer KEY`.")
    ] = None,
    debug: o.Debug = False,
    quiet: o.Quiet = False,
) -> None:
    """Serve models to OpenAI's clients, with methods and budgets, until Ctrl-C.

    Prints the base URL, and on standard error one line a request. A client that leaves cancels its run.
    """
    from anystep.serve.listen import serve as listen
    from anystep.view import printable

    def say(line: str) -> None:
        if not quiet:
            print(printable(line), file=sys.stderr, flush=True)

    listen(named(model or ["smollm2-135m"]), host, port, key or None, say, lambda url: print(url, flush=True))


def named(given: list[str]) -> dict[str, str]:
    """Names to what they load: `mine=models/my.gguf`, or a name that is both."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, what = text.partition("=")
        if equals and (not name or not what):
            raise UsageError(f"--model {text!r} names nothing; write --model mine=models/my.gguf.")
        if name in found:
            raise UsageError(f"--model {name} is given twice; a name stands for one model.")
        found[name] = what or name
    return found
