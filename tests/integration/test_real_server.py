"""A real server, llama.cpp's with SmolLM2: what our faulty one imitates, and what a client of ours must be right on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import anystep
from anystep import Budget, Run, drive, potential, search
from anystep.language.endpoint import Endpoint, EndpointProcess
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


def test_the_server_ends_with_whoever_started_it(server: LlamaServer) -> None:
    code = "import sys\nfrom pathlib import Path\nfrom servers import llama_server\n"
    code += "with llama_server(Path(sys.argv[1]), slots=1) as s:\n    print(s.url, flush=True)\n    sys.stdin.read()"
    command = [sys.executable, "-c", code, str(smollm2_gguf())]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as starter:
        assert starter.stdout is not None
        url = starter.stdout.readline().strip()
        assert httpx.get(f"{url}/models", trust_env=False).status_code == 200
        starter.kill()

    def gone() -> bool:
        try:
            httpx.get(f"{url}/models", trust_env=False, timeout=5)
        except httpx.TransportError:
            return True
        return False

    assert until(gone)


# Our client on it


def test_smollm2_answers_and_the_bill_is_the_servers_own(server: LlamaServer, proxy: CountingProxy) -> None:
    before = server.metrics()
    with Endpoint(proxy.url, concurrency=SLOTS) as endpoint:
        answer = anystep.solve(QUESTION[0]["content"], model=endpoint, method="greedy", max_tokens=24)
        votes = anystep.solve(QUESTION[0]["content"], model=endpoint, method="sample(n=8)", max_tokens=12, seed=3)
    after = server.metrics()
    assert answer.text and votes.finished == 8 and not votes.cost.estimated
    cost, counts = answer.cost + votes.cost, proxy.counts
    assert cost.generated == counts.generated == after["tokens_predicted_total"] - before["tokens_predicted_total"]
    assert cost.prompt == after["prompt_tokens_total"] - before["prompt_tokens_total"]
    assert cost.cached == after["prompt_tokens_cached_total"] - before["prompt_tokens_cached_total"] > 0
    assert cost.prompt + cost.cached == counts.prompt and cost.calls == counts.requests["/chat/completions"]
    assert counts.peak <= SLOTS + 1


def test_choices_of_one_request_are_billed_as_they_truly_were(server: LlamaServer, proxy: CountingProxy) -> None:
    before = server.metrics()["tokens_predicted_total"]
    with Endpoint(proxy.url) as endpoint:
        process = EndpointProcess(endpoint, QUESTION, n=3, max_tokens=8)
        (answer,) = drive(Run(process, search.sample(n=3)))
    made = server.metrics()["tokens_predicted_total"] - before
    assert answer.finished == 3 and answer.cost.generated == proxy.counts.generated == made
    assert proxy.counts.requests["/chat/completions"] == 1


def test_a_cancel_stops_every_slot(server: LlamaServer, proxy: CountingProxy) -> None:
    begun = threading.Event()
    seen: set[int] = set()

    def show(key: int, piece: Any) -> None:
        seen.add(key)
        if len(seen) == SLOTS:
            begun.set()

    with Endpoint(proxy.url) as endpoint:
        process = EndpointProcess(endpoint, QUESTION, max_tokens=900, extra={"ignore_eos": True})
        run = Run(process, search.sample(n=SLOTS), show=show)
        thread = threading.Thread(target=drive, args=(run,))
        thread.start()
        assert begun.wait(60) and server.busy() == SLOTS
        run.cancel()
        thread.join(60)
        assert proxy.idle() and proxy.counts.cancelled == SLOTS
        assert until(lambda: server.busy() == 0)
    assert run.answer is not None and run.answer.stopped_because == "cancelled"
    assert 0 < run.answer.cost.generated < SLOTS * 900 and run.answer.cost.estimated


def test_the_first_to_finish_frees_the_slots_of_the_others(server: LlamaServer, proxy: CountingProxy) -> None:
    with Endpoint(proxy.url) as endpoint:
        answer = anystep.solve(
            QUESTION, model=endpoint, method="first_finish(n=4)", max_tokens=900, seed=1, budget=Budget(tokens=3000)
        )
        assert answer.finished >= 1 and proxy.idle()
        assert until(lambda: server.busy() == 0)
    assert proxy.counts.completed + proxy.counts.cancelled == proxy.counts.calls


def test_reasoning_steps_go_on_from_their_own_beginnings(server: LlamaServer, proxy: CountingProxy) -> None:
    """A particle filter by lines: every step continues its particle's text, and no text is lost or said twice."""
    shorter = potential(lambda states: np.array([-len(text) / 20 for text in states.texts()]), "shorter")
    counting = [{"role": "user", "content": "Count from one to five in words, each on a line of its own."}]
    before = server.metrics()["tokens_predicted_total"]
    with Endpoint(proxy.url) as endpoint:
        process = EndpointProcess(endpoint, counting, unit="step", stop="\n", max_tokens=30, temperature=0.7)
        (answer,) = drive(Run(process, search.particle_filter(n=4, potential=shorter)))
    assert until(lambda: server.busy() == 0)
    assert answer.finished > 0 and answer.failed == 0 and answer.text
    going = [r for r in proxy.requests if r["messages"][-1]["role"] == "assistant" and "seed" in r]
    assert going and all(r["messages"][:-1] == counting for r in going)
    assert all(r["messages"][-1]["content"].endswith("\n") for r in going)
    made = server.metrics()["tokens_predicted_total"] - before
    assert 0 < answer.cost.generated <= made
    assert answer.cost.generated == made or answer.cost.estimated
