"""Whatever JSON a client sends, the server answers it or says what is wrong with it; it never breaks."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from anystep.serve.app import make
from anystep.serve.held import Held
from models import chain_engine

NAMES = [
    "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "n", "seed",
    "logprobs", "top_logprobs", "stream", "stream_options", "include_stop_str_in_output", "anystep", "extra_body",
    "continue_final_message", "add_generation_prompt", "tools", "frequency_penalty", "best_of", "user", "\ud83d\ude00",
]  # fmt: skip
INSIDE = [
    "method",
    "budget",
    "seed",
    "unit",
    "step",
    "progress",
    "tokens",
    "seconds",
    "include_usage",
    "role",
    "content",
]
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 40)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "\n", "user", "assistant", "1+2?", "greedy", "sample(n=2)", "beam(", "token", "é", "\0"])
    | st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INSIDE), inner, max_size=3),
    max_leaves=6,
)
CHAT = {"model": "m", "messages": [{"role": "user", "content": "A1+2?"}], "max_tokens": 3}
COMPLETION = {"model": "m", "prompt": "A1+2?", "max_tokens": 3}
log: list[str] = []
app = make({"m": chain_engine()}, say=log.append)


def posted(path: str, body: Any) -> httpx.Response:
    async def go() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            content = json.dumps(body).encode()
            return await client.post(path, content=content, headers={"content-type": "application/json"})

    return asyncio.run(go())


@settings(max_examples=120)
@given(st.booleans(), st.dictionaries(st.sampled_from(NAMES), values, max_size=4))
def test_any_parameters_are_answered_or_refused(chat: bool, changes: dict[str, Any]) -> None:
    path, base = ("/v1/chat/completions", CHAT) if chat else ("/v1/completions", COMPLETION)
    response = posted(path, {**base, **changes})
    assert response.status_code in (200, 400, 404), (response.text, log[-2:])
    if response.status_code == 200:
        assert "internal_error" not in response.text
    else:
        told = response.json()["error"]
        assert set(told) == {"message", "type", "param", "code"} and "\n" not in told["message"]


@settings(max_examples=50)
@given(values)
def test_any_messages_are_answered_or_refused(messages: Any) -> None:
    for body in ({**CHAT, "messages": messages}, {**CHAT, "messages": [messages]}):
        assert posted("/v1/chat/completions", body).status_code in (200, 400)
    assert posted("/tokenize", messages).status_code in (200, 400, 404)


@given(
    st.lists(st.text("ab#\n", max_size=3), max_size=8), st.lists(st.text("ab#\n", min_size=1, max_size=3), max_size=3)
)
def test_what_leaves_is_the_text_before_its_first_stop(pieces: list[str], stops: list[str]) -> None:
    whole = "".join(pieces)
    final = whole[: min((whole.index(stop) for stop in stops if stop in whole), default=len(whole))]
    held = Held(stops)
    sent = [held.push(piece) for piece in pieces]
    assert final.startswith("".join(sent))  # nothing has left that had to stay
    assert "".join(sent) + held.rest(final) == final
