"""`anystep models`: which models have a name here, and what a server can do."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from anystep.cli import options as o


def models(
    endpoint: Annotated[
        str | None,
        typer.Option(help="Ask this server instead: its models, and what it can do with the one behind the #."),
    ] = None,
    as_json: o.AsJson = False,
    debug: o.Debug = False,
) -> None:
    """List the models that can be asked for by name. A .gguf file, a folder and a Hugging Face id work too.

    With --endpoint, list a server's models; where one is named, or there is only one, some twenty requests of a token
    or so find out what the server can do.
    """
    if endpoint is not None:
        return served(endpoint, as_json)
    from anystep.language import models as known
    from anystep.language.engine.architectures import FAMILIES
    from anystep.view import text_table

    found = known()
    if as_json:
        print(json.dumps([asdict(m) for m in found], indent=2))
        return
    rows = [[m.name, f"{m.parameters:,}", m.licence, "yes" if m.cached else "no", m.source] for m in found]
    print(text_table(["name", "parameters", "licence", "on this machine", "source"], rows))
    print("\nDirectories, Hugging Face ids and GGUF files of these load too, each checked against transformers:")
    families = [[who, kind, architecture] for kind, (who, architecture) in FAMILIES.items()]
    print(text_table(["family", "model_type", "GGUF architecture"], families))
    print("Other models of transformers: anystep.language.from_transformers(model, tokenizer).")


def served(url: str, as_json: bool) -> None:
    """A server's models, and its capabilities where it is clear for which model."""
    from anystep.errors import ModelError
    from anystep.language.endpoint import Endpoint
    from anystep.view import printable, text_table

    with Endpoint(url) as server:
        server.ask("GET", "/models")  # raises where nobody answers
        try:
            names = [str(card["id"]) for card in server.models()]
        except ModelError:
            names = [server.model]  # named by the caller; raises where it is not
        can = server.probe() if "#" in url or len(names) == 1 else None
        spent = server.probes.owed()
        model = server.model if can is not None else None
    if as_json:
        record = {"url": server.url, "models": names, "model": model, "kind": server.kind.name}
        told = None if can is None else {name: asdict(found) for name, found in vars(can).items()}
        print(json.dumps({**record, "capabilities": told, "cost": asdict(spent)}, indent=2))
        return
    print(printable(text_table(["model"], [[name] for name in names])))
    if can is not None:
        rows = [list(row) for row in can.rows()]
        print(printable(text_table([f"{model} ({server.kind.name})", "there", "how, or why not"], rows)))
        print(printable(f"found out by {spent.calls} requests, {spent.tokens} tokens"))
