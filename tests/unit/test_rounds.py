"""Rounds of a language model: what the next one is begun from, on local states and on a server's."""

from __future__ import annotations

import numpy as np
import pytest

from anystep import Budget, Run, UsageError, drive, search
from anystep.language.rounds import Restart, Sliding, Terse, Told, in_rounds
from anystep.ledger import Ledger, Limit
from anystep.process import Status
from anystep.testing import some_keys
from anystep.testing.oracles import EnumerableLM
from anystep.testing.server import FakeServer
from anystep.testing.server.script import Request, Said, pieces
from models import tiny_engine


def restarted(said: list[str], form: Terse | Sliding | Told | None = None) -> tuple[list[str], list[int], list[str]]:
    """Prompts, statuses and outputs that rounds with these outputs are turned into."""
    engine = tiny_engine()
    process, restart = in_rounds(engine, "abc?", form, max_tokens=40, chat=False)
    begun = process.start(some_keys(len(said)), Limit(Ledger(), "tiny")).states
    tokens = tuple((*t, *engine.tokenizer.encode(text)) for t, text in zip(begun.tokens, said, strict=True))
    states = type(begun)(tokens, begun.starts, begun.tokenizer)
    reply = restart.step(states, some_keys(len(said)), Limit(Ledger(), "restart"), "step")
    assert reply.cost.tokens == 0
    return list(reply.states.prompts()), reply.status.tolist(), list(reply.states.texts())


class Marked(Terse):
    """The brackets that the tiny alphabet has."""

    def prompt(self, question: str, summary: str | None) -> str:
        return question if summary is None else f"{question};{summary};"

    def summary(self, prompt: str, said: str) -> str | None:
        parts = said.split(";")
        return parts[1] if len(parts) > 2 else None


def test_a_summary_replaces_everything_a_conclusion_ends_and_a_cut_round_is_drawn_again() -> None:
    prompts, status, texts = restarted(["12;34;", "12.", "12;3", "12;" + "7" * 30 + ";"], Marked())
    assert prompts == ["abc?;34;", "abc?", "abc?", "abc?;" + "7" * 16 + ";"]
    assert status == [Status.LIVE, Status.DONE, Status.LIVE, Status.LIVE]
    assert texts == ["", "12.", "", ""]


def test_a_window_slides_over_whole_lines() -> None:
    form = Sliding(lines=2)
    assert form.summary("q?", "a\n") == "a\n"
    assert form.summary("q?a\nb\n", "c\n") == "b\nc\n"
    assert form.summary("q?a\n", "cut") is None
    assert restarted(["12\n", "12."], form)[:2] == (["abc?12\n", "abc?"], [Status.LIVE, Status.DONE])


def test_words_keep_their_summary_between_tags() -> None:
    told = Told()
    assert told.summary("", "so far <summary> x is 4 </summary>") == "x is 4"
    assert told.concluded("The answer is 4.") and not told.concluded("the answer is <summary>")
    assert told.summary("", "cut <summary> x") is None
    assert "Progress so far:\nx is 4" in told.prompt("Why?", "x is 4")[0]["content"]


def test_a_run_in_rounds_replays_and_keeps_its_budget() -> None:
    """Most rounds of a random model are cut before a summary, some end in one."""
    process, restart = in_rounds(tiny_engine(scale=0.15), "abc?", Marked(), max_tokens=5, chat=False)
    method = search.infty_think(restart, rounds=4, n=3)
    run = Run(process, method, seed=2)
    (answer,) = drive(run)
    again = Run(process, method, seed=2)
    again.replay(run.journal)
    assert again.result().population is not None and again.spent.same(run.spent)
    assert again.result().value == answer.value
    capped = Run(process, method, Budget(generated=20), seed=2)
    drive(capped)
    assert capped.spent.generated <= 20 < run.spent.generated


def test_an_editor_of_other_states_is_refused() -> None:
    with pytest.raises(UsageError, match="call Restart"):
        Restart(EnumerableLM(), "abc?")


def test_rounds_on_a_server_send_the_question_and_the_last_summary_alone() -> None:
    seen: list[str] = []
    says = ["a start <summary>one</summary>", "more <summary>one and two</summary>", "So. The answer is 3."]

    def script(request: Request, choice: int) -> Said:
        seen.append(request.messages[-1]["content"])
        return Said((*pieces(says[len(seen) - 1]), *pieces("")), (), (), "stop")

    with FakeServer(script) as server:
        process, restart = in_rounds(server.url, "How many?", Told(), max_tokens=64)
        (answer,) = drive(Run(process, search.infty_think(restart, rounds=5)))
    assert answer.text == says[-1] and answer.cost.calls == 3
    assert "from the beginning" in seen[0] and "Progress so far:\none\n" in seen[1]
    assert "Progress so far:\none and two\n" in seen[2] and "more" not in seen[2].replace("more than", "")
    assert np.all([text.startswith("How many?") for text in seen])
