"""Options that several commands share, and the budget they make."""

from __future__ import annotations

from typing import Annotated

import typer

from anystep.errors import UsageError
from anystep.ledger import Budget
from anystep.recipe import MOST_ITEMS as MOST_ITEMS

Model = Annotated[
    str,
    typer.Option(
        help="A name that `anystep models` lists, a .gguf file, a folder, a Hugging Face id, or a server's URL with "
        "the model behind a #: http://127.0.0.1:8080/v1#name."
    ),
]
Prices = Annotated[
    str | None,
    typer.Option(help="An endpoint's prices for a million tokens: PROMPT,GENERATED or PROMPT,GENERATED,CACHED."),
]
Tokens = Annotated[int | None, typer.Option(help="Budget: prompt and generated tokens, rewards included.")]
Seconds = Annotated[float | None, typer.Option(help="Budget: seconds of wall clock.")]
Calls = Annotated[int | None, typer.Option(help="Budget: batched calls of models, or requests to an endpoint.")]
Money = Annotated[float | None, typer.Option(help="Budget: money, in the currency of the endpoint's price list.")]
Seed = Annotated[int, typer.Option(help="All randomness follows from it: the same seed, the same answer.")]
Temperature = Annotated[
    float | None, typer.Option(help="Sampling temperature, 0 for greedy; the model's default where left out.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on standard error but errors.")]

EXAMPLES = {"tokens": "4000", "seconds": "20", "calls": "100", "money": "0.05"}


def priced(model: str, prices: str | None) -> str:
    """The model with its prices behind it. UsageError where they are none, or the model is not on a server."""
    if prices is None:
        return model
    if not model.startswith(("http://", "https://")):
        raise UsageError(f"--prices {prices} is for a model on a server, as in --model http://127.0.0.1:8080/v1#name.")
    from anystep.language.endpoint import Prices as Checked

    Checked.read(prices)
    return f"{model}{'' if '#' in model else '#'}?prices={prices}"


def budget(
    tokens: int | None = None, seconds: float | None = None, calls: int | None = None, money: float | None = None
) -> Budget | None:
    """The budget these options say, None where they limit nothing. UsageError for what buys nothing."""
    caps = {"tokens": tokens, "seconds": seconds, "calls": calls, "money": money}
    given = {name: cap for name, cap in caps.items() if cap is not None}
    for name, cap in given.items():
        if not cap > 0:
            raise UsageError(f"--{name} {cap:g} buys nothing; give a positive number, as in --{name} {EXAMPLES[name]}.")
    return Budget(**given) if given else None  # type: ignore[arg-type]
