"""Server-sent events and the objects in them are read whatever the packets look like."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anystep.language.endpoint import events
from anystep.language.endpoint.deltas import WHOLE, deltas, parsed
from anystep.language.endpoint.events import Events, TooLong
from anystep.language.endpoint.trouble import Trouble

STREAM = ': hello\n\nevent: x\nid: 1\ndata: {"a": "é→😀"}\n\ndata: one\ndata: two\n\nretry: 5\n\ndata:[DONE]\n\n'
DATA = ['{"a": "é→😀"}', "one\ntwo", "[DONE]"]


def read(data: bytes, cuts: list[int]) -> list[str]:
    stream, edges = Events(), sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    found = [e for lo, hi in zip(edges, edges[1:], strict=False) for e in stream.feed(data[lo:hi])]
    return found + stream.end()


@given(st.lists(st.integers(0, 500)), st.sampled_from(["\n", "\r\n", "\r"]))
def test_packets_may_be_cut_anywhere(cuts: list[int], newline: str) -> None:
    data = STREAM.replace("\n", newline).encode()
    assert read(data, cuts) == DATA
    assert read(data, list(range(len(data)))) == DATA


def test_a_byte_order_mark_and_a_missing_last_line_do_no_harm() -> None:
    assert read(b"\xef\xbb\xbfdata: a\n\ndata: b", [3]) == ["a", "b"]
    assert read(b"data: a\xff\n\n", []) == ["a\ufffd"]


def test_an_error_that_a_gateway_writes_bare_is_heard() -> None:
    assert read(b'{"error": {"message": "no"}}\n\n', [7]) == ['{"error": {"message": "no"}}']


def test_an_endless_event_is_not_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST", 1000)
    stream = Events()
    with pytest.raises(TooLong):
        for _ in range(100):
            stream.feed(b"data: " + b"x" * 50)


def test_a_chunk_of_a_chat() -> None:
    choice = {"index": 1, "delta": {"content": "a", "reasoning_content": "b"}, "finish_reason": "stop"}
    logprobs = {"content": [{"logprob": -1.5}, {"logprob": -0.5}]}
    (delta,) = deltas({"choices": [{**choice, "logprobs": logprobs, "stop_reason": "\n"}]})
    assert (delta.choice, delta.text, delta.thought, delta.tokens, delta.logp) == (1, "a", "b", 2, -2.0)
    assert (delta.finish, delta.said, delta.stopped) == ("stop", True, "\n")


def test_a_completion_s_logprobs_come_in_either_shape() -> None:
    for logprobs in ({"token_logprobs": [-1.0, -2.0]}, {"content": [{"logprob": -1.0}, {"logprob": -2.0}]}):
        (delta,) = deltas({"choices": [{"index": 0, "text": "ab", "logprobs": logprobs}]})
        assert (delta.text, delta.tokens, delta.logp) == ("ab", 2, -3.0)


def test_usage_belongs_to_the_choice_it_comes_with() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
    *_, riding = deltas({"choices": [{"index": 2, "text": "a"}], "usage": usage})
    (alone,) = deltas({"choices": [], "usage": usage})
    assert riding.choice == 2 and alone.choice == WHOLE and riding.usage == alone.usage
    assert alone.usage is not None and (alone.usage.prompt, alone.usage.generated, alone.usage.cached) == (3, 2, 1)


@pytest.mark.parametrize(
    "usage",
    [None, [], {}, {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": "3", "completion_tokens": "2"},
     {"prompt_tokens": True, "completion_tokens": 1}, {"prompt_tokens": 1.5, "completion_tokens": 1}],
)  # fmt: skip
def test_figures_that_are_none_are_not_believed(usage: object) -> None:
    assert [d.usage for d in deltas({"choices": [{"text": "a"}], "usage": usage})] == [None]


@pytest.mark.parametrize(
    "choice",
    [{"delta": {"content": None}}, {"delta": {}}, {"delta": None}, {"text": None}, {"index": "x", "text": 5},
     {"text": "", "logprobs": {"content": [{"logprob": None}]}}, {"text": "", "logprobs": []}],
)  # fmt: skip
def test_a_choice_that_says_nothing_adds_nothing(choice: object) -> None:
    (delta,) = deltas({"choices": [choice]})
    assert (delta.text, delta.thought, delta.tokens, delta.choice) == ("", "", None, 0)


@pytest.mark.parametrize("data", ["", "{", "[1]", "null", '"x"', '{"error": {"message": "no"}}', "[" * 100_000])
def test_what_is_no_reply_is_trouble_in_one_line(data: str) -> None:
    with pytest.raises(Trouble) as caught:
        parsed(data)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("found", [{}, {"choices": None}, {"choices": ["x"]}, {"choices": [None]}])
def test_an_object_without_choices_is_trouble(found: dict[str, object]) -> None:
    with pytest.raises(Trouble):
        deltas(found)


NAMES = ["choices", "delta", "content", "usage", "index", "logprobs", "text", "message", "error"]
LEAVES = st.none() | st.booleans() | st.floats() | st.text()


@given(st.recursive(LEAVES, lambda x: st.lists(x) | st.dictionaries(st.sampled_from(NAMES), x)))
def test_no_object_whatever_is_more_than_trouble(found: object) -> None:
    try:
        deltas(parsed(json.dumps(found)))
    except Trouble as trouble:
        assert "\n" not in str(trouble)
