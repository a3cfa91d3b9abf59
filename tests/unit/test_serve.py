"""The server's shapes, refusals and books, against the engine's own counters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from anystep import Budget, Run, drive, search
from anystep.language import LanguageProcess
from anystep.language.engine.engine import Engine
from anystep.serve import house, shapes
from anystep.serve.app import make
from anystep.serve.held import Held
from anystep.serve.refusal import Refused
from models import chain_engine, tiny_engine

ASK = "C4 7 9 3 4>97?"
USER = [{"role": "user", "content": ASK}]


class Client:
    """The application over httpx's in-process transport."""

    def __init__(self, **options: Any) -> None:
        self.engine: Engine = options.pop("engine", None) or chain_engine()
        self.log: list[str] = []
        self.app = make({"chainlm-2m": self.engine}, say=self.log.append, **options)

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.request(method, path, **more)

        return asyncio.run(go())

    def post(self, path: str, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        return self.request("POST", path, json={"model": "chainlm-2m", **body}, headers=headers)

    def chat(self, **body: Any) -> dict[str, Any]:
        response = self.post("/v1/chat/completions", **{"messages": USER, **body})
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def complete(self, **body: Any) -> dict[str, Any]:
        response = self.post("/v1/completions", **{"prompt": ASK, "max_tokens": 100, **body})
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def events(self, path: str = "/v1/chat/completions", **body: Any) -> tuple[list[dict[str, Any]], str]:
        """The chunks of a stream, and all of it as it came."""
        given = {"prompt": ASK} if path == "/v1/completions" else {"messages": USER}
        response = self.post(path, **{**given, "stream": True, **body})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.text.split("\n\n") if line]
        assert lines[-1] == "data: [DONE]"
        told = [line for line in lines[:-1] if not line.startswith(":")]
        return [json.loads(line.removeprefix("data: ")) for line in told], response.text

    def error(self, path: str = "/v1/chat/completions", status: int = 400, **body: Any) -> dict[str, Any]:
        given = {"prompt": ASK} if path == "/v1/completions" else {"messages": USER}
        response = self.post(path, **{**given, **body})
        assert response.status_code == status, response.text
        found: dict[str, Any] = response.json()["error"]
        assert set(found) == {"message", "type", "param", "code"} and "Traceback" not in response.text
        return found


@pytest.fixture
def client() -> Iterator[Client]:
    yield Client()


def direct(n: int = 1, seed: int = 1, **options: Any) -> tuple[str, ...]:
    """What the library itself samples."""
    process = LanguageProcess(chain_engine(), ASK, unit="completion", **{"max_tokens": 160, **options})
    (answer,) = drive(Run(process, search.sample(n=n), seed=seed))
    assert answer.population is not None
    return process.texts(answer.population.states)


def test_a_chat_has_openai_s_shape_and_the_library_s_text(client: Client) -> None:
    found = client.chat(seed=1)
    assert set(found) == {"id", "object", "created", "model", "choices", "usage", "anystep"}
    assert found["id"].startswith("chatcmpl-") and found["object"] == "chat.completion" and found["created"] > 1e9
    (choice,) = found["choices"]
    assert choice["message"] == {"role": "assistant", "content": direct()[0], "refusal": None}
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    assert choice["message"]["content"].endswith(".")  # its end token is text


def test_a_completion_has_its_own_shape_and_its_own_default_length(client: Client) -> None:
    found = client.complete(seed=1)
    assert found["id"].startswith("cmpl-") and found["object"] == "text_completion"
    assert found["choices"] == [
        {"index": 0, "text": direct()[0], "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    ]
    short = client.complete(seed=1, max_tokens=None)
    assert short["usage"]["completion_tokens"] == 16 and short["choices"][0]["finish_reason"] == "length"
    assert short["choices"][0]["text"] == direct()[0][:16]


def test_usage_is_what_the_engine_did(client: Client) -> None:
    counters, prompt = client.engine.counters, len(ASK)
    for body, cached in (({"seed": 1}, 0), ({"seed": 2}, prompt), ({"seed": 3, "n": 5}, prompt)):
        before = (counters.prefilled, counters.positions, counters.passes)
        found = client.chat(**body)
        usage, cost = found["usage"], found["anystep"]["cost"]
        assert usage["prompt_tokens"] == prompt
        assert usage["prompt_tokens_details"] == {"cached_tokens": cached}
        assert usage["completion_tokens"] == sum(len(c["message"]["content"]) for c in found["choices"])
        assert usage["total_tokens"] == prompt + usage["completion_tokens"]
        assert cost["tokens"] == usage["total_tokens"] - cached
        assert counters.prefilled - before[0] == prompt - cached
        assert counters.positions - before[1] == cost["evaluations"]
        assert counters.passes - before[2] == cost["calls"]


def test_n_choices_are_the_samples_in_order_each_with_its_own_end(client: Client) -> None:
    found = client.chat(n=4, seed=1, max_tokens=30)
    texts = [c["message"]["content"] for c in found["choices"]]
    assert [c["index"] for c in found["choices"]] == [0, 1, 2, 3]
    assert tuple(texts) == direct(4, max_tokens=30)
    ends = [c["finish_reason"] for c in found["choices"]]
    assert ends == ["stop" if text.endswith(".") else "length" for text in texts] and len(set(ends)) == 2


def test_a_seed_decides_and_no_seed_is_a_fresh_one(client: Client) -> None:
    assert client.chat(seed=7)["choices"] == client.chat(seed=7)["choices"]
    assert client.chat(anystep={"seed": 7})["choices"] == client.chat(seed=7)["choices"]
    free = [client.chat() for _ in range(2)]
    assert len({f["anystep"]["seed"] for f in free}) == 2
    again = client.chat(seed=free[0]["anystep"]["seed"])
    assert again["choices"] == free[0]["choices"]
    assert client.chat(temperature=0, seed=1)["choices"] == client.chat(temperature=0, seed=2)["choices"]


def test_stop_texts_end_a_choice_and_are_left_out_or_kept(client: Client) -> None:
    whole = direct()[0]
    found = client.chat(seed=1, stop="\n")["choices"][0]
    assert (found["message"]["content"], found["finish_reason"], found["stop_reason"]) == (
        whole.partition("\n")[0],
        "stop",
        "\n",
    )
    kept = client.chat(seed=1, stop=["*4", "\n"], include_stop_str_in_output=True)["choices"][0]
    assert kept["message"]["content"] == whole[: whole.index("\n") + 1] and kept["stop_reason"] == "\n"
    natural = client.chat(seed=1, stop=["zzz"])["choices"][0]
    assert (natural["message"]["content"], natural["stop_reason"]) == (whole, None)


def test_a_stream_is_the_same_answer_piece_by_piece(client: Client) -> None:
    chunks, text = client.events(seed=1, stream_options={"include_usage": True})
    *told, last = chunks
    assert [c["choices"][0]["delta"] for c in told[:1]] == [{"role": "assistant", "content": ""}]
    pieces = [c["choices"][0]["delta"].get("content", "") for c in told]
    assert "".join(pieces) == direct()[0] and max(map(len, pieces)) == 1  # a token at a time
    assert all(len(c["choices"]) == 1 and c["usage"] is None for c in told)
    assert [c["choices"][0]["finish_reason"] for c in told[-2:]] == [None, "stop"]
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == len(direct()[0])
    assert told[-1]["anystep"]["method"] == "sample(n=1)" and "anystep" not in told[-2]
    assert len({(c["id"], c["created"], c["model"], c["object"]) for c in chunks}) == 1


def test_without_stream_options_there_is_no_usage_and_no_empty_choices(client: Client) -> None:
    chunks, _ = client.events(seed=1)
    assert all("usage" not in c and len(c["choices"]) == 1 for c in chunks)


def test_running_usage_counts_up_to_the_final_figures(client: Client) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks, _ = client.events("/v1/completions", seed=1, max_tokens=20, stream_options=options)
    figures = [c["usage"] for c in chunks]
    counts = [u["completion_tokens"] for u in figures]
    assert counts == sorted(counts) and counts[-1] == 20
    assert {u["prompt_tokens"] for u in figures} == {len(ASK)}
    assert all(u["total_tokens"] == u["prompt_tokens"] + u["completion_tokens"] for u in figures)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(
    "body", [{}, {"stop": ["\n3", "98+4"]}, {"stop": ["\n3"], "include_stop_str_in_output": True}, {"max_tokens": 9}]
)
def test_a_stream_of_several_choices_equals_the_whole_response(client: Client, path: str, body: dict[str, Any]) -> None:
    given = {"n": 3, "seed": 1, "max_tokens": 60, **body}
    whole = client.complete(**given) if path.endswith("v1/completions") else client.chat(**given)
    chunks, _ = client.events(path, **given)
    texts, ends = ["", "", ""], {}
    for choice in (c for chunk in chunks for c in chunk["choices"]):
        texts[choice["index"]] += choice["delta"].get("content", "") if "delta" in choice else choice["text"]
        if choice["finish_reason"]:
            ends[choice["index"]] = (choice["finish_reason"], choice["stop_reason"])
    assert texts == [c["message"]["content"] if "message" in c else c["text"] for c in whole["choices"]]
    assert [ends[i] for i in range(3)] == [(c["finish_reason"], c["stop_reason"]) for c in whole["choices"]]


def model_logprobs(engine: Engine, prompt: str, text: str) -> np.ndarray[Any, Any]:
    """(len(text), vocab): what the model itself gives each next token, by a plain pass without any cache."""
    tokens = engine.tokenizer.encode(prompt + text)
    logits = engine.forward(torch.tensor([tokens]))[0].double()
    scores = torch.log_softmax(logits, -1).numpy()
    return np.asarray(scores[len(tokens) - len(text) - 1 : -1])


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_log_probabilities_are_the_model_s(client: Client, temperature: float) -> None:
    found = client.chat(seed=1, logprobs=True, top_logprobs=3, temperature=temperature)["choices"][0]
    text, content = found["message"]["content"], found["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content) == text
    assert bytes(b for entry in content for b in entry["bytes"]).decode() == text
    exact = model_logprobs(client.engine, ASK, text)
    tokens = client.engine.tokenizer.encode(text)
    np.testing.assert_allclose([e["logprob"] for e in content], exact[np.arange(len(tokens)), tokens], atol=1e-4)
    best = np.sort(exact, -1)[:, ::-1][:, :3]
    np.testing.assert_allclose([[t["logprob"] for t in e["top_logprobs"]] for e in content], best, atol=1e-4)


def test_completions_tell_log_probabilities_as_parallel_lists(client: Client) -> None:
    found = client.complete(seed=1, logprobs=2)["choices"][0]
    told, text = found["logprobs"], found["text"]
    assert "".join(told["tokens"]) == text and told["text_offset"] == list(range(len(text)))
    assert all(len(top) == 2 for top in told["top_logprobs"]) and len(told["token_logprobs"]) == len(text)
    chunks, _ = client.events("/v1/completions", seed=1, logprobs=2, max_tokens=100)
    parts = [c["choices"][0]["logprobs"] for c in chunks if c["choices"][0]["logprobs"]]
    for name in told:
        assert [x for part in parts for x in part[name]] == told[name]
    one = client.chat(seed=1, logprobs=True)["choices"][0]["logprobs"]["content"]
    assert [e["logprob"] for e in one] == told["token_logprobs"] and one[0]["top_logprobs"] == []


def test_a_prefix_goes_on_to_the_text_it_was_cut_from(client: Client) -> None:
    whole = direct()[0]
    for cut in (1, 5, len(whole) - 1):
        begun = [*USER, {"role": "assistant", "content": whole[:cut]}]
        for flags in ({}, {"continue_final_message": True, "add_generation_prompt": False}):
            found = client.chat(messages=begun, seed=1, **flags)
            assert whole[:cut] + found["choices"][0]["message"]["content"] == whole
            assert found["usage"]["prompt_tokens"] == len(ASK) + cut
    completed = client.complete(prompt=ASK + whole[:5], seed=1)
    assert whole[:5] + completed["choices"][0]["text"] == whole


def test_a_method_answers_and_its_judge_is_in_the_bill(client: Client) -> None:
    from anystep import verify

    judge = verify.chain_steps()
    judge.forget()
    before = judge.engine.counters.prefilled
    method = "best_of_n(n=8, reward=chain_steps)"
    found = client.chat(seed=1, anystep={"method": method})
    ours, usage = found["anystep"], found["usage"]
    read = judge.engine.counters.prefilled - before
    assert read > 0 and usage["prompt_tokens"] == len(ASK) + read
    assert (ours["started"], ours["finished"], ours["stopped_because"], ours["seed"]) == (8, 8, "finished", 1)
    assert ours["method"] == method and ours["confidence"] is None
    assert ours["cost"]["tokens"] == usage["total_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
    assert {c["tokens"] for c in ours["costs"].values()} == {read, ours["cost"]["tokens"] - read}
    process = LanguageProcess(client.engine, ASK, stop="\n", max_tokens=120, at_cap="failed")
    (answer,) = drive(Run(process, search.best_of_n(n=8, reward=judge), seed=1))
    assert found["choices"][0]["message"]["content"] == answer.text
    named = client.chat(seed=1, model=f"chainlm-2m:{method}")
    assert named["choices"] == found["choices"] and named["model"] == "chainlm-2m"
    chunks, _ = client.events(seed=1, anystep={"method": method, "progress": True})
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == answer.text
    assert chunks[-1]["anystep"]["method"] == ours["method"]


@pytest.mark.parametrize("model", ["smollm2-135m", "http://127.0.0.1:9/v1", "/etc/passwd"])
def test_a_client_has_no_other_model_loaded_and_no_server_called_to_judge(client: Client, model: str) -> None:
    told = client.error(anystep={"method": f"best_of_n(n=2, reward=judge(model='{model}'))"})
    assert told["message"] == "Here chainlm-2m judges; write judge without model=...."


def test_a_model_that_cannot_read_the_rubric_cannot_judge(client: Client) -> None:
    told = client.error(anystep={"method": "best_of_n(n=2, reward=judge)"})
    assert told["message"].startswith("chainlm-2m cannot read a judge's words")


def test_a_budget_cuts_short_and_says_so(client: Client) -> None:
    found = client.chat(seed=1, anystep={"budget": {"tokens": len(ASK) + 9}})
    assert found["choices"][0]["message"]["content"] == direct()[0][:9]
    assert found["choices"][0]["finish_reason"] == "length" and found["anystep"]["stopped_because"] == "tokens"
    assert found["anystep"]["cost"]["tokens"] == len(ASK) + 9
    several = client.chat(seed=1, n=3, anystep={"budget": {"tokens": 40}})
    texts = [c["message"]["content"] for c in several["choices"]]
    assert all(t == w[: len(t)] for t, w in zip(texts, direct(3), strict=True))
    assert sum(map(len, texts)) == several["usage"]["completion_tokens"] <= 40
    method = client.chat(seed=1, anystep={"method": "self_consistency(n=8)", "budget": {"tokens": 30}})
    assert method["choices"][0]["message"]["content"] is None and method["choices"][0]["finish_reason"] == "length"
    assert method["anystep"]["note"] and method["usage"]["completion_tokens"] > 0
    nothing = Client().chat(seed=1, anystep={"budget": {"tokens": 3}})  # less than the prompt costs
    assert nothing["usage"]["total_tokens"] == 0 and nothing["choices"][0]["message"]["content"] == ""


def test_a_method_whose_samples_all_fail_has_no_answer_and_a_bill(client: Client) -> None:
    body = {"seed": 1, "max_tokens": 3, "anystep": {"method": "sample(n=2)"}}  # no chain ends so soon
    found = client.chat(**body)
    assert found["choices"][0]["message"]["content"] is None and found["choices"][0]["finish_reason"] == "length"
    assert found["anystep"]["stopped_because"] == "failed" and found["anystep"]["failed"] == 2
    assert "max_tokens=3" in found["anystep"]["errors"][0] and found["usage"]["completion_tokens"] == 6
    chunks, _ = client.events(**body)
    assert [c["choices"][0]["delta"].get("content") for c in chunks] == ["", None]
    assert chunks[-1]["anystep"]["stopped_because"] == "failed"


def test_greedy_is_a_plain_answer(client: Client) -> None:
    found = client.chat(anystep={"method": "greedy"})
    assert found["choices"] == client.chat(temperature=0)["choices"] and found["anystep"]["method"] == "greedy"


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
    ({"frequency_penalty": 0.5}, "frequency_penalty", "unsupported_parameter"),
    ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
    ({"echo": True}, "echo", "unsupported_parameter"),
    ({"zzz": 1}, "zzz", "unknown_parameter"),
    ({"user": "me"}, "user", "unknown_parameter"),
    ({"anystep": {"methode": "greedy"}}, "anystep.methode", "unknown_parameter"),
    ({"anystep": {"budget": {"tokens": 0}}}, "anystep.budget.tokens", "invalid_value"),
    ({"extra_body": {"seed": 1}, "seed": 2}, "seed", "invalid_value"),
    ({"extra_body": [1]}, "extra_body", "invalid_value"),
    ({"temperature": "warm"}, "temperature", "invalid_value"),
    ({"temperature": 2.5}, "temperature", "invalid_value"),
    ({"temperature": 10**400}, "temperature", "invalid_value"),
    ({"top_p": 0}, "top_p", "invalid_value"),
    ({"n": 0}, "n", "invalid_value"),
    ({"n": True}, "n", "invalid_value"),
    ({"n": 1000}, "n", "invalid_value"),
    ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "invalid_value"),
    ({"seed": 1, "anystep": {"seed": 2}}, "seed", "invalid_value"),
    ({"stop": [""]}, "stop[0]", "invalid_value"),
    ({"stop": ["x"] * 17}, "stop", "invalid_value"),
    ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
    ({"logprobs": True, "anystep": {"method": "sample(n=2)"}}, "logprobs", "unsupported_parameter"),
    ({"n": 2, "anystep": {"method": "sample(n=2)"}}, "n", "invalid_value"),
    ({"temperature": 0.5, "anystep": {"method": "greedy"}}, "temperature", "invalid_value"),
    ({"anystep": {"step": "\n"}}, "anystep.step", "invalid_value"),
    ({"extra_body": {"anystep": {"unit": "token"}}}, "anystep.unit", "invalid_value"),
    ({"anystep": {"method": "sample(n=2000)"}}, "anystep.method", "invalid_value"),
    ({"model": "chainlm-2m:sample(n=2)", "anystep": {"method": "greedy"}}, "anystep.method", "invalid_value"),
    ({"messages": []}, "messages", "invalid_value"),
    ({"messages": "hello"}, "messages", "invalid_value"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
    ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "invalid_value"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "invalid_value"),
    ({"messages": [{"role": "system", "content": "1+1?"}]}, "messages", "invalid_value"),
    ({"messages": USER, "continue_final_message": True}, "continue_final_message", "invalid_value"),
    ({"messages": USER, "add_generation_prompt": False}, "add_generation_prompt", "invalid_value"),
    (
        {
            "messages": [*USER, {"role": "assistant", "content": "7"}],
            "continue_final_message": True,
            "add_generation_prompt": True,
        },
        "continue_final_message",
        "invalid_value",
    ),
]


@pytest.mark.parametrize(("body", "param", "code"), REFUSED, ids=[f"{p}-{i}" for i, (_, p, _) in enumerate(REFUSED)])
def test_what_would_not_be_honoured_is_refused_by_name(
    client: Client, body: dict[str, Any], param: str, code: str
) -> None:
    for stream in (False, True):
        found = client.error(stream=stream, **body)
        assert (found["param"], found["code"], found["type"]) == (param, code, "invalid_request_error")
        assert found["message"].count("\n") == 0
    assert client.engine.counters.passes == 0


def test_image_parts_are_refused_and_text_parts_are_read(client: Client) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:"}}
    told = client.error(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}, picture]}])
    assert "'image_url'" in told["message"] and told["param"] == "messages[0].content"
    parts = [{"type": "text", "text": ASK[:4]}, {"type": "text", "text": ASK[4:]}]
    assert (
        client.chat(messages=[{"role": "user", "content": parts}], seed=1)["choices"] == client.chat(seed=1)["choices"]
    )


def test_harmless_values_and_nulls_change_nothing(client: Client) -> None:
    found = client.chat(
        seed=1, frequency_penalty=0, presence_penalty=0.0, logit_bias={}, tools=None, response_format={"type": "text"},
        stop=None, n=None, top_p=1, extra_body={"max_tokens": 100, "add_generation_prompt": True}, max_tokens=100,
    )  # fmt: skip
    assert found["choices"] == client.chat(seed=1)["choices"]
    returned = {**found["choices"][0]["message"], "tool_calls": None}
    assert client.chat(messages=[*USER, returned], seed=1, max_tokens=1)["usage"]["completion_tokens"] == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b'"text"',
        b'{"a": NaN}',
        b"\xff\xfe{",
        b"[" * 100_000,
        b'{"model": "\\ud800"}',
        b"1" * 9999,
    ],
)
def test_a_body_that_is_no_json_object_is_a_400(client: Client, content: bytes) -> None:
    response = client.request(
        "POST", "/v1/chat/completions", content=content, headers={"content-type": "application/json"}
    )
    assert response.status_code == 400 and response.json()["error"]["type"] == "invalid_request_error"


def test_other_content_types_and_large_bodies_are_refused(client: Client) -> None:
    plain = client.request("POST", "/v1/completions", content=b"{}", headers={"content-type": "text/plain"})
    assert plain.status_code == 415
    large = client.error("/v1/completions", status=413, prompt="x" * (4 << 20))
    assert large["code"] == "body_too_large"


def test_prompts_that_cannot_be_read_are_400s(client: Client) -> None:
    assert "160" in client.error("/v1/completions", prompt="1" * 200)["message"]
    assert "alphabet" in client.error("/v1/completions", prompt="ÄÖ")["message"]
    assert "empty" in client.error("/v1/completions", prompt="")["message"]
    assert client.error("/v1/completions", prompt=["a", "b"])["param"] == "prompt"
    assert client.error("/v1/completions", prompt=[1, 2])["param"] == "prompt"
    assert client.complete(prompt=[ASK], seed=1)["choices"] == client.complete(seed=1)["choices"]
    assert "best_of_n" in client.error(anystep={"method": "bestofn(n=2)"})["message"]
    assert "temperature" not in client.error(temperature=0, anystep={"method": "beam(width=2, branch=2)"})["code"]


def test_models_and_paths_that_are_not_there(client: Client) -> None:
    assert client.error(status=404, model="gpt-4")["code"] == "model_not_found"
    listed = client.request("GET", "/v1/models").json()
    assert [m["id"] for m in listed["data"]] == ["chainlm-2m"] and listed["object"] == "list"
    assert client.request("GET", "/v1/models/chainlm-2m").json() == listed["data"][0]
    assert client.request("GET", "/v1/models/other").status_code == 404
    for method, path, status in (
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/completions", 405),
        ("OPTIONS", "/v1/completions", 405),
    ):
        response = client.request(method, path)
        assert response.status_code == status and set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert client.request("GET", "/health").json() == {"status": "ok"}


def test_tokenize_counts_what_a_request_will_read(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    found = client.post("/tokenize", prompt=ASK).json()
    assert found == {"count": 14, "tokens": client.engine.tokenizer.encode(ASK), "max_model_len": 160}
    assert client.post("/tokenize", content=ASK).json() == found
    assert client.post("/tokenize", messages=USER).json() == found
    assert found["count"] == client.complete(max_tokens=1)["usage"]["prompt_tokens"]
    monkeypatch.setattr(client.engine.tokenizer, "begin", (2,))  # a model whose every prompt begins with this token
    assert client.post("/tokenize", prompt=ASK).json()["tokens"] == [2, *found["tokens"]]
    assert client.complete(max_tokens=1)["usage"]["prompt_tokens"] == 15
    monkeypatch.undo()
    assert client.error("/tokenize", prompt="1", content="2")["param"] == "prompt"
    begun = [*USER, {"role": "assistant", "content": "7-4"}]
    count = client.post("/tokenize", messages=begun).json()["count"]
    assert count == client.chat(messages=begun, max_tokens=1)["usage"]["prompt_tokens"]


def test_a_key_is_asked_for_and_other_names_are_not_answered() -> None:
    client = Client(key="secret", hosts=None)
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "secret"},
        {"authorization": "Basic secret"},
    ):
        response = client.request("GET", "/v1/models", headers=headers)
        assert response.status_code == 401 and response.json()["error"]["code"] == "invalid_api_key"
    good = {"authorization": "Bearer secret"}
    assert client.request("GET", "/v1/models", headers=good).status_code == 200
    assert client.request("GET", "/health").status_code == 200
    local = Client()
    for host, status in (("evil.example", 421), ("localhost:8000", 200), ("[::1]:8000", 200), ("127.0.0.1", 200)):
        assert local.request("GET", "/v1/models", headers={"host": host}).status_code == status
    response = local.request("GET", "/v1/models", headers={"origin": "http://evil.example"})
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_a_defect_is_told_to_the_log_alone(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("the secret plan")

    monkeypatch.setattr(LanguageProcess, "judge", broken)
    whole = client.error(status=500)
    assert "secret" not in whole["message"] and whole["type"] == "server_error"
    response = client.post("/v1/chat/completions", messages=USER, stream=True)
    last = json.loads(response.text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["code"] == "internal_error" and "secret" not in response.text
    assert sum("the secret plan" in line for line in client.log) == 2


def test_what_says_how_a_stream_looks_needs_one(client: Client) -> None:
    assert client.error(stream_options={"include_usage": True})["param"] == "stream_options"
    assert client.error(anystep={"method": "sample(n=2)", "progress": True})["param"] == "anystep.progress"


def test_work_that_was_paid_before_an_error_is_told_with_it() -> None:
    client = Client(engine=tiny_engine())
    method = {"method": "best_of_n(n=2, reward=chain_steps)"}  # whose judge knows no E
    body = {"prompt": "what is next E", "max_tokens": 5, "anystep": method, "seed": 1}
    response = client.post("/v1/completions", **body)
    assert response.status_code == 400 and "alphabet" in response.json()["error"]["message"]
    usage = response.json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (14, 10)
    assert client.engine.counters.prefilled == 14
    streamed = client.post("/v1/completions", **body, stream=True).text.strip().split("\n\n")[-1]
    assert json.loads(streamed.removeprefix("data: "))["usage"]["completion_tokens"] == 10


def test_too_many_requests_are_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house, "RUNNING", 0)
    monkeypatch.setattr(house, "WAITING", 0)
    response = Client().post("/v1/chat/completions", messages=USER)
    assert response.status_code == 429 and response.headers["retry-after"] == "1"


def test_text_is_held_back_only_while_it_may_be_a_stop() -> None:
    held = Held(["###", "#x"])
    assert [held.push(p) for p in ("ab", "#", "#", "c", "#x", "d")] == ["ab", "", "", "##c", "", ""]
    assert held.rest("ab##c") == ""
    kept = Held(["###"], keep=True)
    assert [kept.push(p) for p in ("a#", "#", "#b")] == ["a#", "#", "#"] and kept.rest("a###") == ""
    cut = Held(["###"])
    assert cut.push("a##") == "a" and cut.rest("a##") == "##"


def test_a_wider_vocabulary_and_a_budget_agree_with_a_run_by_hand() -> None:
    engine = tiny_engine()
    client = Client(engine=engine)
    prompt = "what is next? "
    found = client.complete(prompt=prompt, max_tokens=40, n=3, seed=5, temperature=0.7, top_p=0.9)
    process = LanguageProcess(tiny_engine(), prompt, unit="completion", max_tokens=40, temperature=0.7, top_p=0.9)
    run = Run(process, search.sample(n=3), Budget(tokens=10_000), seed=5)
    (answer,) = drive(run)
    assert answer.population is not None
    assert tuple(c["text"] for c in found["choices"]) == process.texts(answer.population.states)
    assert found["usage"]["total_tokens"] == answer.cost.tokens


def test_a_request_of_very_many_wrong_things_is_told_of_one() -> None:
    wide = {"model": "m", "prompt": "x", **{f"k{i}": 1 for i in range(1_001)}}
    with pytest.raises(Refused, match="an object has at most 1000 fields here, not 1,003"):
        shapes.read(shapes.Completion, json.dumps(wide).encode())
    with pytest.raises(ValidationError) as wrong:
        shapes.Chat.model_validate({"model": "m", "messages": [{"role": "nobody", "content": 1}] * 1_000})
    assert wrong.value.error_count() <= 2
