"""Thinking is capped, ended from outside, and kept out of what is voted on."""

from __future__ import annotations

from typing import Any

import pytest

from anystep import Run, drive, search
from anystep.errors import Unsupported, UsageError
from anystep.language.endpoint import Endpoint, EndpointProcess, Thinking
from anystep.testing.server import OPENAI, FakeServer, Offers, Piece, Request, Said, says, words

MUSING = "so let me see, two and two, that may well be four, or is it five, I think four, yes"
ANSWER = "Final answer: 4"


def thinker(request: Request, choice: int) -> Said:
    """Thinks inline, goes on with whatever it began, and ends its thinking by itself at the end of MUSING."""
    whole = f"<think>{MUSING}</think>\n\nIt is {4 + request.prefix.count('Wait')}."
    if request.prefix.endswith("Final answer:"):
        return Said(tuple(Piece(word) for word in (*words(" 4"), "")))
    text = request.prefix.replace("Wait", "")
    rest = whole[len(text) :] if whole.startswith(text) else f"</think>\n\nIt is {4 + request.prefix.count('Wait')}."
    return Said(tuple(Piece(word) for word in (*words(rest), "")))


def run(server: FakeServer, thinking: Thinking | None, **options: Any) -> Run:
    made = EndpointProcess(Endpoint(server.url), "What is 2 + 2?", thinking=thinking, max_tokens=200, **options)
    found = Run(made, search.self_consistency(n=2), seed=1)
    drive(found)
    return found


def said(found: Run) -> tuple[str, str]:
    """The reply as it is shown, and whole."""
    assert found.answer is not None and found.answer.population is not None
    return str(found.answer.text), found.answer.population.states.texts()[0]


def _requests(found: Run) -> int:
    """Without the probes."""
    return found.ledger.by["toy"].calls


def test_without_a_cap_the_answer_is_what_follows_the_thinking() -> None:
    with FakeServer(thinker) as server:
        shown, whole = said(run(server, None))
        assert shown == "\n\nIt is 4." and whole == f"<think>{MUSING}</think>{shown}"


def test_thinking_within_its_budget_is_left_alone() -> None:
    with FakeServer(thinker) as server:
        found = run(server, Thinking(budget=150))
        assert said(found)[0] == "\n\nIt is 4." and _requests(found) == 2


def test_thinking_beyond_its_budget_is_ended_and_the_answer_asked_for() -> None:
    with FakeServer(thinker) as server:
        found = run(server, Thinking(budget=12))
        shown, whole = said(found)
        assert shown == "\n\nFinal answer: 4" and found.answer is not None and found.answer.value == ANSWER
        thought = whole.partition("\n</think>")[0]
        assert (f"<think>{MUSING}").startswith(thought) and len(words(thought)) == 11  # and a space
        first, *_, second = (r for r in server.requests if "seed" in r.body)  # the others are probes
        assert first.body["max_tokens"] == 12 and second.prefix == f"{thought}\n</think>\n\nFinal answer:"
        assert found.spent.generated == server.counts.generated and found.spent.prompt == server.counts.prompt


@pytest.mark.parametrize("offers", [Offers(), Offers(stop_reason=False, owner="nobody", continuation="always")])
def test_it_is_told_to_think_on(offers: Offers) -> None:
    with FakeServer(thinker, offers=offers) as server:
        found = run(server, Thinking(budget=150, waits=2))
        shown, whole = said(found)
        assert whole.count("Wait") == 2 and whole.count("</think>") == 1 and shown.strip() == "It is 6."


def test_thinking_that_is_delivered_apart_is_ended_as_well() -> None:
    with FakeServer(says(ANSWER, reasoning=MUSING)) as server:
        found = run(server, Thinking(budget=10))
        assert found.answer is not None and found.answer.value == ANSWER and found.answer.population is not None
        state = found.answer.population.states.rows[0]
        assert MUSING.startswith(state.thought) and len(words(state.thought)) == 10 and state.closed
        assert server.requests[-1].prefix == f"<think>{state.thought}</think>\n\nFinal answer:"


def test_thinking_that_is_delivered_apart_is_told_to_go_on() -> None:
    with FakeServer(says(ANSWER, reasoning="Hm.")) as server:
        found = run(server, Thinking(budget=50, waits=1))
        assert found.answer is not None and found.answer.value == ANSWER and found.answer.population is not None
        assert found.answer.population.states.rows[0].thought.startswith("Hm.Wait")


def test_a_model_that_does_not_think_just_answers() -> None:
    with FakeServer(says("It is 4.")) as server:
        found = run(server, Thinking(budget=20))
        assert found.answer is not None and found.answer.text == "It is 4." and _requests(found) == 2


def test_a_reply_that_ends_in_its_thoughts_has_no_answer() -> None:
    with FakeServer(says("<think>Hm, no idea")) as server:
        found = run(server, None)
        assert found.answer is not None and found.answer.value is None


def test_what_cannot_be_meant_or_done_is_refused() -> None:
    server = Endpoint("http://127.0.0.1:9/v1#m", api="completions")
    with pytest.raises(UsageError, match="leaves nothing of max_tokens=100"):
        EndpointProcess(server, "x", thinking=Thinking(budget=100), max_tokens=100)
    for options in ({"budget": 0}, {"waits": -1}, {"close": ""}, {"waits": 1, "wait": ""}):
        with pytest.raises(UsageError, match="Thinking"):
            Thinking(**options)  # type: ignore[arg-type]
    with FakeServer(offers=OPENAI) as fake, pytest.raises(Unsupported, match="ends thinking and goes on"):
        EndpointProcess(Endpoint(fake.url), "x", thinking=Thinking())
