"""`anystep models`: which models have a name here."""

from __future__ import annotations

import json
from dataclasses import asdict

from anystep.cli import options as o


def models(as_json: o.AsJson = False, debug: o.Debug = False) -> None:
    """List the models that can be asked for by name. A .gguf file, a folder and a Hugging Face id work too."""
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
