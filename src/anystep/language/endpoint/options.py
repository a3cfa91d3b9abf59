"""What `EndpointProcess` may be asked for: its prompt and its options, checked before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from anystep.errors import UsageError
from anystep.language.endpoint.states import Prompt

OURS = {
    "model": "Endpoint(url, model=...)",
    "messages": "the prompt",
    "prompt": "the prompt",
    "stop": "stop=, end=",
    "logprobs": "logprobs=True",
    "seed": "the run's seed",
    "max_completion_tokens": "max_tokens=",
    **{name: f"{name}=" for name in ("n", "temperature", "top_p", "max_tokens")},
    **{name: "nothing: replies are always streamed" for name in ("stream", "stream_options")},
}


def read(prompt: Any) -> Prompt:
    """The prompt, its messages copied. UsageError where it is none."""
    example = "[{'role': 'user', 'content': 'Hello'}]"
    if isinstance(prompt, str):
        if not prompt:
            raise UsageError("An empty prompt cannot be continued: EndpointProcess(server, 'What is 2 + 2?').")
        return prompt
    if not isinstance(prompt, (list, tuple)) or not prompt or not all(isinstance(m, Mapping) for m in prompt):
        raise UsageError(f"{prompt!r:.60} is no prompt: give text, or messages such as {example}.")
    try:
        return tuple(json.loads(json.dumps(list(prompt))))
    except (TypeError, ValueError) as error:
        raise UsageError(f"The messages cannot be sent as JSON ({error}); they look like {example}.") from None


def check(
    unit: str,
    stop: str,
    ends: tuple[str, ...],
    temperature: Any,
    top_p: Any,
    max_tokens: Any,
    at_cap: str,
    n: Any,
    extra: Mapping[str, Any],
) -> None:
    """UsageError for an option that cannot be meant."""
    if unit == "token":
        raise UsageError("EndpointProcess(unit='token'): a request a token is waste; use 'step' or 'completion'.")
    if unit not in ("step", "completion"):
        raise UsageError(f"EndpointProcess(unit={unit!r}): a unit is 'completion' or 'step'.")
    if not isinstance(stop, str) or not stop or not all(isinstance(end, str) and end for end in ends):
        raise UsageError("EndpointProcess(stop='\\n\\n', end=('.',)): neither may be empty text.")
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or not 0 <= temperature < np.inf:
        raise UsageError(f"EndpointProcess(temperature={temperature!r}): 0 (greedy) or more, such as 0.8.")
    if isinstance(top_p, bool) or not isinstance(top_p, (int, float)) or not 0 < top_p <= 1:
        raise UsageError(f"EndpointProcess(top_p={top_p!r}): above 0 and at most 1, such as 0.95.")
    for what, value in (("max_tokens", max_tokens), ("n", n)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"EndpointProcess({what}={value!r}): a positive whole number.")
    if at_cap not in ("done", "failed"):
        raise UsageError(f"EndpointProcess(at_cap={at_cap!r}): 'done' or 'failed'.")
    for field in extra:
        if field in OURS:
            raise UsageError(f"EndpointProcess(extra={{{field!r}: ...}}): say it by {OURS[field]} instead.")
