"""A real server, llama.cpp's with SmolLM2: what our faulty one imitates, and what a client of ours must be right on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from anystep.testing.server import CountingProxy
from servers import LlamaServer, has_llama_server, llama_server, smollm2_gguf

pytestmark = [
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.skipif(not has_llama_server(), reason="needs xllamacpp"),
]

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
SLOTS = 4


@pytest.fixture(scope="module")
def server() -> Iterator[LlamaServer]:
    with llama_server(smollm2_gguf(), slots=SLOTS) as server:
        yield server


@pytest.fixture
def proxy(server: LlamaServer) -> Iterator[CountingProxy]:
    assert until(lambda: server.busy() == 0)
    with CountingProxy(server.url) as proxy:
        yield proxy
        assert proxy.idle()


def until(holds: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Polls, for a server in another process has no event to wait for."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def post(proxy: CountingProxy, **body: Any) -> Any:
    answer = httpx.post(
        f"{proxy.url}/chat/completions", json={"messages": QUESTION, **body}, timeout=120, trust_env=False
    )
    return answer.json()


def stream(proxy: CountingProxy, **body: Any) -> list[Any]:
    asked = {"messages": QUESTION, "stream": True, **body}
    with httpx.stream("POST", f"{proxy.url}/chat/completions", json=asked, timeout=120, trust_env=False) as answer:
        return [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {")]


def test_it_reports_each_choice_apart_and_the_proxy_adds_them_up(server: LlamaServer, proxy: CountingProxy) -> None:
    before = server.metrics()["tokens_predicted_total"]
    whole = post(proxy, n=3, seed=5, max_tokens=6)
    made = server.metrics()["tokens_predicted_total"] - before
    assert whole["usage"]["completion_tokens"] < made  # the first choice's alone: why nobody may trust it
    counted = proxy.counts.generated
    before += made
    told = [
        e["usage"]
        for e in stream(proxy, n=3, seed=5, max_tokens=6, stream_options={"include_usage": True})
        if "usage" in e
    ]
    assert len(told) == 3
    assert proxy.counts.generated - counted == server.metrics()["tokens_predicted_total"] - before
    assert proxy.counts.prompt == 2 * told[0]["prompt_tokens"]


def test_it_continues_a_trailing_message_and_echoes_it_in_a_whole_answer(proxy: CountingProxy) -> None:
    going = [*QUESTION, {"role": "assistant", "content": "The capital of France"}]
    whole = post(proxy, messages=going, temperature=0, max_tokens=4)
    assert whole["choices"][0]["message"]["content"].startswith("The capital of France")
    assert whole["usage"]["completion_tokens"] == 4
    deltas = [
        c["delta"].get("content") or ""
        for e in stream(proxy, messages=going, temperature=0, max_tokens=4)
        for c in e["choices"]
    ]
    assert "The capital of France" + "".join(deltas) == whole["choices"][0]["message"]["content"]


def test_a_client_that_leaves_frees_the_slot(server: LlamaServer, proxy: CountingProxy) -> None:
    asked = {"messages": QUESTION, "stream": True, "max_tokens": 900, "ignore_eos": True}
    before = server.metrics()["tokens_predicted_total"]
    with httpx.stream("POST", f"{proxy.url}/chat/completions", json=asked, timeout=120, trust_env=False) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        for _ in range(5):
            next(lines)
        assert server.busy() == 1
    assert until(lambda: server.busy() == 0) and proxy.idle()
    made = server.metrics()["tokens_predicted_total"] - before
    assert made < 900 and proxy.counts.cancelled == proxy.counts.cut == 1
    assert 4 <= proxy.counts.generated <= made + SLOTS  # its books are written when a slot is free; deltas come before
