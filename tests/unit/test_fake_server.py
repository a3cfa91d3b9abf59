"""The faulty server says what its script says, does wrong what was planned, and counts what truly happened; so does
the proxy. Clients here are plain httpx, so that nothing of ours is tested against itself."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pytest

from anystep.errors import UsageError
from anystep.testing.oracles import EnumerableLM
from anystep.testing.server import (
    LLAMA_CPP,
    OPENAI,
    VLLM,
    Break,
    CountingProxy,
    Dressed,
    Edited,
    FakeServer,
    Garbled,
    Gate,
    Hang,
    Inject,
    Offers,
    Piece,
    Request,
    Said,
    ToolCall,
    Toy,
    Usage,
    busy,
    empty,
    error_event,
    page,
    pieces,
    says,
    status,
    too_long,
    words,
)

HELLO = [{"role": "user", "content": "What is two and two?"}]
SCRIPT = says("The answer is 4.")
MADE = len(words("The answer is 4.")) + 1  # and the end token
READ = 3 + len(words("What is two and two?"))


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30, trust_env=False) as client:
        yield client


def chat(client: httpx.Client, server: Any, **body: Any) -> httpx.Response:
    return client.post(f"{server.url}/chat/completions", json={"messages": HELLO, **body})


def events(client: httpx.Client, server: Any, route: str = "chat/completions", **body: Any) -> list[Any]:
    """The objects of a stream, and the text "[DONE]" where it comes."""
    asked = {"messages": HELLO} if route.startswith("chat") else {"prompt": "Two and two? "}
    with client.stream("POST", f"{server.url}/{route}", json={**asked, "stream": True, **body}) as answer:
        assert answer.status_code == 200, answer.read()
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def text(found: list[Any], index: int = 0) -> str:
    choices = [c for e in found if e != "[DONE]" for c in e["choices"] if c["index"] == index]
    return "".join(c.get("text") or (c.get("delta") or {}).get("content") or "" for c in choices)


def test_a_whole_answer_has_openais_shape_and_true_usage(client: httpx.Client) -> None:
    with FakeServer(SCRIPT) as server:
        found = chat(client, server).json()
    assert found["object"] == "chat.completion" and found["model"] == "toy"
    assert found["choices"][0]["message"] == {"role": "assistant", "content": "The answer is 4."}
    assert found["choices"][0]["finish_reason"] == "stop"
    assert found["usage"]["prompt_tokens"] == READ and found["usage"]["completion_tokens"] == MADE
    assert found["usage"]["total_tokens"] == READ + MADE


@pytest.mark.parametrize("route", ["chat/completions", "completions"])
def test_a_stream_says_the_same_token_by_token(client: httpx.Client, route: str) -> None:
    with FakeServer(SCRIPT) as server:
        found = events(client, server, route, stream_options={"include_usage": True})
    assert found[-1] == "[DONE]" and text(found) == "The answer is 4."
    ends = [c["finish_reason"] for e in found[:-1] for c in e["choices"] if c["finish_reason"]]
    assert ends == ["stop"]
    assert found[-2]["choices"] == [] and found[-2]["usage"]["completion_tokens"] == MADE
    assert not any("usage" in e for e in found[:-2])


def test_usage_comes_in_every_chunk_or_in_none_as_asked(client: httpx.Client) -> None:
    every = {"include_usage": True, "continuous_usage_stats": True}
    with FakeServer(SCRIPT) as server:
        growing = [
            e["usage"]["completion_tokens"] for e in events(client, server, stream_options=every)[:-1] if "usage" in e
        ]
        assert growing == [*range(MADE + 1), MADE, MADE]  # the role, each token, the end of the choice, and the whole
        assert not any("usage" in e for e in events(client, server)[:-1])
    with FakeServer(SCRIPT, Offers(usage="ignored")) as server:
        assert not any("usage" in e for e in events(client, server, stream_options=every)[:-1])
    with FakeServer(SCRIPT, Offers(continuous="ignored")) as server:
        assert sum("usage" in e for e in events(client, server, stream_options=every)[:-1]) == 1


def test_the_toy_draws_from_its_known_law(client: httpx.Client) -> None:
    toy = Toy(EnumerableLM(seed=1, vocab=3, length=3))
    law = {output: float(p) for output, p in toy.outputs().items()}
    assert sum(law.values()) == pytest.approx(1)
    with FakeServer(toy) as server:
        seen: Counter[str] = Counter()
        for seed in range(20):  # 2,560 draws, |z| < 5 on each of their outputs
            found = chat(client, server, seed=seed, n=128).json()["choices"]
            seen.update(c["message"]["content"] for c in found)
    n = sum(seen.values())
    for output, p in law.items():
        assert abs(seen[output] - n * p) < 5 * np.sqrt(n * p * (1 - p)) + 1, output
    assert set(seen) <= set(law)


def test_the_toy_is_a_function_of_what_is_asked_and_zero_temperature_is_the_likeliest_path(
    client: httpx.Client,
) -> None:
    toy = Toy(EnumerableLM(seed=3, vocab=4, length=6))
    with FakeServer(toy) as server:
        first, again = (chat(client, server, seed=5).json()["choices"][0] for _ in range(2))
        assert first == again
        assert text(events(client, server, seed=5)) == first["message"]["content"]
        assert len({chat(client, server, seed=s).json()["choices"][0]["message"]["content"] for s in range(20)}) > 3
        greedy = chat(client, server, temperature=0).json()["choices"][0]["message"]["content"]
    tokens: tuple[int, ...] = ()
    while len(tokens) < 6 and 0 not in tokens:
        tokens = (*tokens, int(np.argmax(toy.law(tokens))))
    assert greedy == toy.text(tokens)


def test_logprobs_are_those_of_the_law(client: httpx.Client) -> None:
    toy = Toy(EnumerableLM(seed=2, vocab=3, length=4))
    with FakeServer(toy) as server:
        told = chat(client, server, seed=1, logprobs=True, top_logprobs=2).json()["choices"][0]
        raw = client.post(f"{server.url}/completions", json={"prompt": "?", "logprobs": 1, "seed": 1}).json()[
            "choices"
        ][0]
        streamed = events(client, server, seed=1, logprobs=True)
    tokens: tuple[int, ...] = ()
    for entry in told["logprobs"]["content"]:
        token = 0 if entry["token"] == "" else toy.letters.index(entry["token"]) + 1
        assert entry["logprob"] == pytest.approx(np.log(toy.law(tokens)[token]))
        assert [t["logprob"] for t in entry["top_logprobs"]] == sorted(np.log(toy.law(tokens)))[:-3:-1]
        tokens = (*tokens, token)
    assert sum(e["logprob"] for e in told["logprobs"]["content"]) == pytest.approx(
        float(np.log(float(toy.model.outputs[tokens])))
    )
    assert (
        len(raw["logprobs"]["tokens"]) == len(raw["logprobs"]["token_logprobs"]) == len(raw["logprobs"]["text_offset"])
    )
    assert [len(top) for top in raw["logprobs"]["top_logprobs"]] == [1] * len(raw["logprobs"]["tokens"])
    pieces_ = [c["logprobs"]["content"] for e in streamed[:-1] for c in e["choices"] if c.get("logprobs")]
    assert [p[0]["logprob"] for p in pieces_] == [e["logprob"] for e in told["logprobs"]["content"]]


def test_a_prefix_goes_on_as_it_would_have_gone_on(client: httpx.Client) -> None:
    toy = Toy(EnumerableLM(seed=3, vocab=4, length=6))
    asks = {"continue_final_message": True, "add_generation_prompt": False}
    with FakeServer(toy) as server:
        whole = {s: chat(client, server, seed=s).json()["choices"][0]["message"]["content"] for s in range(12)}
        long = [(s, t) for s, t in whole.items() if len(t) > 2]
        assert len(long) > 3
        for seed, said in long:
            going = [*HELLO, {"role": "assistant", "content": said[:2]}]
            rest = chat(client, server, messages=going, seed=seed, **asks).json()["choices"][0]["message"]["content"]
            assert said[:2] + rest == said
            fresh = chat(client, server, messages=going, seed=seed).json()["usage"]["prompt_tokens"]
            assert fresh == READ + 3 + 2  # not asked to go on: one more message, which it answers afresh
        for seed in range(3):
            said = client.post(f"{server.url}/completions", json={"prompt": "Q: ", "seed": seed}).json()["choices"][0][
                "text"
            ]
            rest = client.post(f"{server.url}/completions", json={"prompt": "Q: " + said[:1], "seed": seed}).json()
            assert said[:1] + rest["choices"][0]["text"] == said
        assert chat(client, server, continue_final_message=True).status_code == 400  # with a generation prompt
        assert chat(client, server, **asks).status_code == 400  # no trailing assistant message
    with FakeServer(SCRIPT, Offers(continuation="always")) as server:
        going = [*HELLO, {"role": "assistant", "content": "The answer"}]
        assert chat(client, server, messages=going).json()["choices"][0]["message"]["content"] == " is 4."
    with FakeServer(SCRIPT, Offers(continuation="ignored")) as server:
        assert (
            chat(client, server, messages=going, **asks).json()["choices"][0]["message"]["content"]
            == "The answer is 4."
        )


def test_a_server_like_llama_cpp_differs_as_the_real_one_does(client: httpx.Client) -> None:
    """Each of these was measured on a real one; see tests/integration/test_real_server.py."""
    going = [*HELLO, {"role": "assistant", "content": "The answer"}]
    with FakeServer(SCRIPT, LLAMA_CPP) as server:
        whole = chat(client, server, n=3).json()
        assert whole["usage"]["completion_tokens"] == MADE and server.counts.generated == 3 * MADE
        told = [e for e in events(client, server, n=3, stream_options={"include_usage": True})[:-1] if "usage" in e]
        assert [e["usage"]["completion_tokens"] for e in told] == [MADE] * 3 and not any(e["choices"] for e in told)
        raw = events(client, server, "completions", n=2, logprobs=1, stream_options={"include_usage": True})
        assert all(e["choices"][0]["finish_reason"] for e in raw[:-1] if "usage" in e)
        assert "content" in raw[0]["choices"][0]["logprobs"]
        assert chat(client, server, messages=going).json()["choices"][0]["message"]["content"] == "The answer is 4."
        sent = events(client, server, messages=going)
        assert text(sent) == " is 4." and sent[0]["choices"][0]["delta"]["content"] is None
        assert "stop_reason" not in whole["choices"][0]
    with FakeServer(SCRIPT, OPENAI) as server:
        assert chat(client, server, top_k=3).status_code == 400
        assert client.post(f"{server.url}/completions", json={"prompt": "?"}).status_code == 404
        assert chat(client, server, reasoning_effort="low").status_code == 200
    with FakeServer(SCRIPT, VLLM) as server:
        found = [chat(client, server, stop=stop).json()["choices"][0]["stop_reason"] for stop in (["is"], [])]
        assert found == ["is", None]
        assert client.post(f"{server.url}/tokenize", json={"messages": HELLO}).json()["count"] == READ


@pytest.mark.parametrize("streams", [False, True])
def test_caps_and_stops_cut_and_say_so(client: httpx.Client, streams: bool) -> None:
    def ask(**body: Any) -> tuple[str, str, int]:
        if not streams:
            found = chat(client, server, **body).json()
            choice = found["choices"][0]
            return choice["message"]["content"], choice["finish_reason"], found["usage"]["completion_tokens"]
        sent = events(client, server, stream_options={"include_usage": True}, **body)
        (end,) = (c["finish_reason"] for e in sent[:-1] for c in e["choices"] if c["finish_reason"])
        return text(sent), end, sent[-2]["usage"]["completion_tokens"]

    with FakeServer(SCRIPT) as server:
        assert ask(max_tokens=3) == ("The answer", "length", 3)
        assert ask(max_completion_tokens=MADE) == ("The answer is 4.", "stop", MADE)
        assert ask(stop="swer is") == ("The an", "stop", 5)
        assert ask(stop=["4", "answer"]) == ("The ", "stop", 3)
        assert ask(stop=["is"], include_stop_str_in_output=True) == ("The answer is", "stop", 5)
        assert ask(stop=["is"], max_tokens=2) == ("The ", "length", 2)


def test_reasoning_and_tool_calls_are_tokens_too(client: httpx.Client) -> None:
    call = ToolCall("add", '{"a": 2, "b": 2}')
    with FakeServer(says("", reasoning="Let me think.", tool_calls=[call])) as server:
        found = chat(client, server).json()
        sent = events(client, server)
        short = chat(client, server, max_tokens=2).json()
    message = found["choices"][0]["message"]
    assert message["reasoning_content"] == "Let me think." and message["content"] is None
    assert message["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 2, "b": 2}'}
    assert found["choices"][0]["finish_reason"] == "tool_calls"
    thought = len(words("Let me think."))
    assert found["usage"]["completion_tokens_details"]["reasoning_tokens"] == thought
    assert found["usage"]["completion_tokens"] == thought + 1 + 1 + len(words(call.arguments))
    deltas = [c["delta"] for e in sent[:-1] for c in e["choices"]]
    assert "".join(d.get("reasoning_content", "") for d in deltas) == "Let me think."
    assert "".join(c["function"]["arguments"] for d in deltas for c in d.get("tool_calls", ())) == call.arguments
    assert short["usage"]["completion_tokens_details"]["reasoning_tokens"] == 2
    assert short["choices"][0]["finish_reason"] == "length"


def test_several_choices_grow_side_by_side(client: httpx.Client) -> None:
    with FakeServer(says("one", "two", "three four")) as server:
        found = chat(client, server, n=3, seed=0).json()
        sent = events(client, server, n=3, seed=0, stream_options={"include_usage": True})
    texts = [c["message"]["content"] for c in found["choices"]]
    assert texts == ["one", "two", "three four"] == [text(sent, i) for i in range(3)]
    order = [c["index"] for e in sent[:-1] for c in e["choices"] if (c.get("delta") or {}).get("content")]
    assert order == [0, 1, 2, 2, 2]
    assert found["usage"]["completion_tokens"] == sent[-2]["usage"]["completion_tokens"] == 2 + 2 + 4


def test_what_is_switched_off_is_ignored_or_refused(client: httpx.Client) -> None:
    with FakeServer(SCRIPT, Offers(n="ignored", logprobs="ignored", seed="ignored")) as server:
        found = chat(client, server, n=4, logprobs=True, seed=3).json()
        assert len(found["choices"]) == 1 and found["choices"][0]["logprobs"] is None
        assert server.requests[0].seed == 0  # the number of the request, for want of another
    everything = Offers(
        n="refused", logprobs="refused", seed="refused", usage="refused", continuation="refused", others="refused"
    )
    asks: dict[str, Any] = {
        "n": 2,
        "logprobs": True,
        "seed": 1,
        "stream_options": {},
        "continue_final_message": True,
        "top_k": 3,
    }
    with FakeServer(SCRIPT, everything) as server:
        assert chat(client, server, n=1, temperature=0.5).status_code == 200
        for name, value in asks.items():
            refused = chat(client, server, **{name: value})
            assert refused.status_code == 400 and refused.json()["error"]["param"] == name
            assert refused.json()["error"]["code"] == "unknown_parameter"
    with FakeServer(SCRIPT, Offers(others="refused", accepts=("reasoning_effort",))) as server:
        assert chat(client, server, reasoning_effort="low").status_code == 200
        assert chat(client, server, thinking_budget=3).status_code == 400
        assert server.requests[0].body["reasoning_effort"] == "low"


def test_routes_can_be_missing_and_models_unknown(client: httpx.Client) -> None:
    with FakeServer(offers=Offers(completions=False), models=("a", "b"), context=40, api_key="k") as server:
        assert chat(client, server).status_code == 401
        client.headers["authorization"] = "Bearer k"
        assert [m["id"] for m in client.get(f"{server.url}/models").json()["data"]] == ["a", "b"]
        assert client.post(f"{server.url}/completions", json={"prompt": "?"}).status_code == 404
        assert client.post(f"{server.url}/tokenize", json={"prompt": "?"}).status_code == 404
        unknown = chat(client, server, model="c")
        assert unknown.status_code == 404 and unknown.json()["error"]["code"] == "model_not_found"
        long = chat(client, server, model="a", max_tokens=40)
        assert long.status_code == 400 and long.json()["error"]["code"] == "context_length_exceeded"
        assert chat(client, server, model="b", max_tokens=4).json()["model"] == "b"
        assert client.get(f"{server.url}/chat/completions").status_code == 405
        assert client.post(f"{server.url}/chat/completions", content=b"{no").status_code == 400
        for wrong in ({"n": 0}, {"n": "x"}, {"max_tokens": 0}, {"temperature": 3}, {"messages": []}):
            assert chat(client, server, **wrong).status_code in (200, 400)
        assert chat(client, server, max_tokens=0).status_code == 400
    with FakeServer(offers=Offers(tokenize=True, chat=False)) as server:
        assert client.post(f"{server.url}/tokenize", json={"prompt": "a b"}).json()["count"] == 3
        assert chat(client, server).status_code == 404
    del client.headers["authorization"]


def test_prompts_that_begin_alike_are_cached_where_asked(client: httpx.Client) -> None:
    with FakeServer(SCRIPT, caches=True) as server:
        found = [chat(client, server).json()["usage"]["prompt_tokens_details"]["cached_tokens"] for _ in range(2)]
    assert found == [0, READ]


def test_image_parts_are_prompt_too(client: httpx.Client) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    message = {"role": "user", "content": [{"type": "text", "text": "What?"}, image]}
    with FakeServer(SCRIPT) as server:
        assert chat(client, server, messages=[message]).json()["usage"]["prompt_tokens"] == 3 + 2 + 16
        assert server.requests[0].messages[0] == message


def test_counts_are_of_what_happened(client: httpx.Client) -> None:
    with FakeServer(SCRIPT) as server:
        for _ in range(3):
            chat(client, server)
        events(client, server, max_tokens=2)
        client.get(f"{server.url}/models")
        counts = server.counts
    assert counts.requests == {"/chat/completions": 4, "/models": 1} and counts.calls == 5
    assert counts.connections == 1  # kept and used again
    assert (counts.in_flight, counts.peak, counts.completed, counts.cancelled, counts.broken) == (0, 1, 5, 0, 0)
    assert counts.prompt == 4 * READ and counts.generated == 3 * MADE + 2
    assert [r.number for r in server.requests] == [0, 1, 2, 3] and server.requests[3].stream


def test_a_client_that_leaves_is_counted_with_what_it_cost(client: httpx.Client) -> None:
    gate = Gate(after=3)
    with FakeServer(SCRIPT, faults=gate) as server:
        with client.stream("POST", f"{server.url}/chat/completions", json={"messages": HELLO, "stream": True}):
            assert gate.wait() and server.counts.in_flight == 1
        assert server.idle()
        counts = server.counts
        assert (counts.cancelled, counts.completed, counts.generated, counts.prompt) == (1, 0, 3, READ)
        with pytest.raises(httpx.ReadTimeout):  # also where nothing was sent yet
            client.post(f"{server.url}/chat/completions", json={"messages": HELLO}, timeout=0.2)
        assert server.idle() and server.counts.cancelled == 2


def test_a_gate_holds_until_it_is_opened_and_the_peak_is_seen() -> None:
    gate = Gate(after=2)
    with FakeServer(SCRIPT, faults=gate) as server, httpx.Client(timeout=30, trust_env=False) as client:
        found: list[str] = []
        threads = [
            threading.Thread(
                target=lambda: found.append(chat(client, server).json()["choices"][0]["message"]["content"])
            )
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        assert gate.wait(5)
        assert (
            server.counts.in_flight == server.counts.peak == 5 and not server.idle(0) and server.counts.generated == 10
        )
        gate.release()
        for thread in threads:
            thread.join()
        assert found == ["The answer is 4."] * 5 and server.idle(0) and server.counts.connections == 5


FAILURES = {
    400: too_long(),
    401: status(401),
    404: status(404),
    429: busy(),
    500: empty(500),
    502: page(502),
    503: status(503),
}


@pytest.mark.parametrize(("code", "fault"), FAILURES.items())
def test_statuses_are_sent_once_as_planned_and_cost_nothing(client: httpx.Client, fault: Any, code: int) -> None:
    with FakeServer(SCRIPT, faults={0: fault}) as server:
        assert chat(client, server).status_code == code
        assert server.counts.prompt == server.counts.generated == 0
        assert chat(client, server).status_code == 200
        assert server.counts.completed == 2 and server.counts.connections == 1


def test_retry_after_is_in_seconds_or_a_date(client: httpx.Client) -> None:
    when = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    with FakeServer(faults={0: busy(1.5), 1: busy(when), 2: busy()}) as server:
        told = [chat(client, server).headers.get("retry-after") for _ in range(3)]
    assert told == ["1.5", "Wed, 02 Jan 2030 03:04:05 GMT", None]


def test_bodies_can_be_pages_empty_or_half(client: httpx.Client) -> None:
    with FakeServer(SCRIPT, faults={0: page(), 1: empty(), 2: Garbled()}) as server:
        assert chat(client, server).headers["content-type"] == "text/html"
        assert chat(client, server).content == b""
        with pytest.raises(ValueError):
            chat(client, server).json()


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("how", ["reset", "close", "short", "end"])
@pytest.mark.parametrize("after", [None, 0, 2])
def test_exchanges_break_where_they_are_told_to(
    client: httpx.Client, streams: bool, how: Any, after: int | None
) -> None:
    with FakeServer(SCRIPT, faults={0: Break(after, how)}) as server:
        if streams and how == "end" and after is not None:  # ends well as HTTP
            found = events(client, server)
            assert "[DONE]" not in found and text(found) == ("", "The ")[after > 0]
            assert not any(c["finish_reason"] for e in found for c in e["choices"])
        else:
            with pytest.raises(httpx.RemoteProtocolError if how != "reset" else httpx.TransportError):
                events(client, server) if streams else chat(client, server)
        assert server.idle() and server.counts.broken == 1 and server.counts.generated == (after or 0)
        assert server.counts.prompt == (0 if after is None else READ)
        assert chat(client, server).status_code == 200


def test_a_hang_ends_when_the_client_gives_up(client: httpx.Client) -> None:
    with FakeServer(SCRIPT, faults={0: Hang(), 1: Hang(after=2)}) as server:
        for _ in range(2):
            with pytest.raises(httpx.ReadTimeout):
                client.post(f"{server.url}/chat/completions", json={"messages": HELLO, "stream": True}, timeout=0.2)
        assert server.idle() and server.counts.cancelled == 2 and server.counts.generated == 2


def test_a_server_that_closes_leaves_no_client_waiting(client: httpx.Client) -> None:
    with FakeServer(SCRIPT, faults=Hang()) as server:
        failed: list[Exception] = []

        def ask() -> None:
            try:
                chat(client, server)
            except httpx.TransportError as error:
                failed.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        assert server.counting.until(10, in_flight=1)
    thread.join(10)
    assert len(failed) == 1 and server.counts.broken == 1 and server.counts.in_flight == 0


@pytest.mark.parametrize("how", ["large", "negative", "missing", "null", "strings", "list"])
def test_usage_is_wrong_as_planned_and_counted_right(client: httpx.Client, how: Any) -> None:
    with FakeServer(SCRIPT, faults=Usage(how)) as server:
        told = chat(client, server).json().get("usage")
        ended = events(client, server, stream_options={"include_usage": True})[-2]
        assert server.counts.prompt == 2 * READ and server.counts.generated == 2 * MADE
    assert ended.get("usage") == told
    expected = {
        "large": lambda: told["prompt_tokens"] == READ + 10**12,
        "negative": lambda: told["completion_tokens"] == -MADE - 1,
        "missing": lambda: told is None,
        "null": lambda: told["prompt_tokens"] is None,
        "strings": lambda: told["prompt_tokens"] == str(READ),
        "list": lambda: told == [READ, MADE, READ + MADE],
    }
    assert expected[how]()


def test_objects_lack_what_is_planned(client: httpx.Client) -> None:
    plan = {0: Edited("no choices"), 1: Edited("null content"), 2: Edited("odd finish"), 3: Edited("odd finish")}
    with FakeServer(SCRIPT, faults=plan) as server:
        assert "choices" not in chat(client, server).json()
        assert chat(client, server).json()["choices"][0]["message"]["content"] is None
        assert chat(client, server).json()["choices"][0]["finish_reason"] == "solar_flare"
        sent = events(client, server)
    assert [c["finish_reason"] for e in sent[:-1] for c in e["choices"] if c["finish_reason"]] == ["solar_flare"]


@pytest.mark.parametrize("size", [1, 3, None])
def test_streams_may_be_dressed_oddly_and_mean_the_same(client: httpx.Client, size: int | None) -> None:
    odd = Dressed(crlf=True, comments=True, done=2, size=size, padding=1000 if size is None else 0)
    toy = Toy(EnumerableLM(seed=3, vocab=4, length=6))
    with FakeServer(toy) as plain, FakeServer(toy, faults=odd) as server:
        seed = max(range(12), key=lambda s: len(text(events(client, plain, seed=s))))
        right, found = events(client, plain, seed=seed), events(client, server, seed=seed)
        with client.stream(
            "POST", f"{server.url}/chat/completions", json={"messages": HELLO, "stream": True}
        ) as answer:
            raw = list(answer.iter_raw())
    assert text(found) == text(right) != "" and found[-2:] == ["[DONE]", "[DONE]"]
    whole = b"".join(raw)
    assert b": keep-alive\r\n\r\n" in whole and b"\n" not in whole.replace(b"\r\n", b"")
    if size is None:
        assert all(len(e["padding"]) == 1000 for e in found[:-2])
    else:
        assert max(map(len, raw)) <= size


def test_things_are_put_between_the_events_of_a_stream(client: httpx.Client) -> None:
    plan = {0: error_event(after=2), 1: Inject(after=1), 2: Garbled(), 3: Dressed(seconds=0.001)}
    with FakeServer(SCRIPT, faults=plan) as server:
        found = events(client, server)
        assert found[-1]["error"]["message"] == "the engine died"
        with pytest.raises(ValueError):
            events(client, server)
        with pytest.raises(ValueError):
            events(client, server)
        assert text(events(client, server)) == "The answer is 4."


def test_a_plan_may_ask_what_is_asked_and_a_script_too(client: httpx.Client) -> None:
    def script(request: Request, choice: int) -> Said:
        return Said((*pieces(str(request.messages[-1]["content"]).upper()), Piece("!", -0.5)), finish="content_filter")

    with FakeServer(script, faults=lambda request: status(503) if request.stream else None) as server:
        found = chat(client, server).json()["choices"][0]
        assert chat(client, server, stream=True).status_code == 503
    assert found["message"]["content"] == "WHAT IS TWO AND TWO?!" and found["finish_reason"] == "content_filter"


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(UsageError, match=r'says\("The answer is 4."\)'):
        says()
    with pytest.raises(UsageError, match="CountingProxy"):
        CountingProxy("localhost:80")
    with FakeServer() as server, pytest.raises(OSError), FakeServer(port=server.port):
        pass


# The proxy


@pytest.fixture
def between() -> Iterator[tuple[FakeServer, CountingProxy]]:
    with FakeServer(SCRIPT) as server, CountingProxy(server.url) as proxy:
        yield server, proxy


def test_the_proxy_changes_nothing_and_counts_what_is_true(
    client: httpx.Client, between: tuple[FakeServer, CountingProxy]
) -> None:
    server, proxy = between
    assert chat(client, proxy, seed=0).json()["choices"] == chat(client, server, seed=0).json()["choices"]
    without, direct = (events(client, s, seed=0) for s in (proxy, server))
    told, asked = (events(client, s, seed=0, stream_options={"include_usage": True}) for s in (proxy, server))
    named = [
        [{k: v for k, v in e.items() if k != "id"} if e != "[DONE]" else e for e in s]
        for s in (without, direct, told, asked)
    ]
    assert named[0] == named[1] and named[2] == named[3] and len(told) == len(without) + 1
    assert client.get(f"{proxy.url}/models").json() == client.get(f"{server.url}/models").json()
    counts = proxy.counts
    assert counts.requests == {"/chat/completions": 3, "/models": 1} and counts.connections == 1
    assert counts.prompt == 3 * READ and counts.generated == 3 * MADE
    assert counts.completed == 4 and counts.cut == counts.in_flight == 0
    assert [bool(r.get("stream")) for r in proxy.requests] == [False, True, True]


@pytest.mark.parametrize("route", ["chat/completions", "completions"])
def test_the_proxy_adds_up_what_a_server_reports_choice_by_choice(client: httpx.Client, route: str) -> None:
    every = {"include_usage": True, "continuous_usage_stats": True}
    for offers in (LLAMA_CPP, VLLM):
        with FakeServer(SCRIPT, offers) as server, CountingProxy(server.url) as proxy:
            events(client, proxy, route, n=3)
            events(client, proxy, route, n=2, max_tokens=2, stream_options=every)
            assert proxy.counts.generated == server.counts.generated == 3 * MADE + 4
            assert proxy.counts.prompt == server.counts.prompt and proxy.counts.cut == 0


def test_the_proxy_does_not_hold_events_back(client: httpx.Client) -> None:
    gate = Gate(after=2)
    with FakeServer(SCRIPT, faults=gate) as server, CountingProxy(server.url) as proxy:
        with client.stream("POST", f"{proxy.url}/chat/completions", json={"messages": HELLO, "stream": True}) as answer:
            lines = (line for line in answer.iter_lines() if line.startswith("data: "))
            first = [json.loads(next(lines)[6:]) for _ in range(3)]  # the role and two tokens, while it is held
            assert text(first) == "The " and server.counts.in_flight == proxy.counts.in_flight == 1
            gate.release()
            assert [*lines][-1] == "data: [DONE]"
        assert proxy.counts.completed == 1


def test_the_proxy_passes_the_clients_leaving_on_and_counts_what_was_made(client: httpx.Client) -> None:
    gate = Gate(after=3)
    with FakeServer(SCRIPT, faults=lambda r: gate if r.stream else None) as server, CountingProxy(server.url) as proxy:
        for known in (False, True):
            with client.stream(
                "POST", f"{proxy.url}/chat/completions", json={"messages": HELLO, "stream": True}
            ) as answer:
                lines = (line for line in answer.iter_lines() if line.startswith("data: "))
                for _ in range(4):
                    next(lines)
            assert server.idle() and proxy.idle()
            if not known:
                assert proxy.counts.unread == 1 and proxy.counts.prompt == 0
                chat(client, proxy)  # from here on the prompt is known
        counts = proxy.counts
        assert server.counts.cancelled == counts.cancelled == counts.cut == 2 and counts.unread == 1
        assert counts.generated == server.counts.generated == 3 + MADE + 3
        assert counts.prompt == 2 * READ
        with pytest.raises(httpx.ReadTimeout):
            client.post(f"{proxy.url}/chat/completions", json={"messages": HELLO, "stream": True}, timeout=0.2)
        assert server.idle() and proxy.idle() and proxy.counts.cancelled == 3


def test_the_proxy_breaks_where_its_server_breaks(client: httpx.Client) -> None:
    plan = {0: Break(2, "close"), 1: Break(None, "close"), 2: status(503, retry_after="7"), 3: Usage("strings")}
    with FakeServer(SCRIPT, faults=plan) as server, CountingProxy(server.url) as proxy:
        for _ in range(2):
            with pytest.raises(httpx.RemoteProtocolError):
                events(client, proxy)
        answer = chat(client, proxy)
        assert answer.status_code == 503 and answer.headers["retry-after"] == "7"
        chat(client, proxy)
        counts = proxy.counts
        assert counts.broken == 2 and counts.completed == 2 and counts.in_flight == 0
    with CountingProxy(server.url) as proxy:  # nobody listens there any more
        gone = chat(client, proxy)
        assert gone.status_code == 502 and "no connection" in gone.json()["error"]["message"]
        assert proxy.counts.broken == 1
