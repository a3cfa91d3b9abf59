"""A served model as a process: what is sent, what is paid, what is cut, and what is refused."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

import anystep
from anystep import Budget, Run, drive, search
from anystep.answer import AllFailed
from anystep.errors import ModelError, Unsupported, UsageError
from anystep.language.endpoint import Endpoint, EndpointProcess, Prices, Transcripts
from anystep.ledger import JointLimit, Ledger, Limit
from anystep.process import Status, reward
from anystep.testing import some_keys
from anystep.testing.limits import CountingLedger
from anystep.testing.server import (
    LLAMA_CPP,
    OPENAI,
    Dressed,
    Edited,
    FakeServer,
    Gate,
    Hang,
    Offers,
    Plan,
    Request,
    Toy,
    Usage,
    says,
)

LONG = "one two three four five six seven eight nine ten eleven twelve. " * 4


def sampled(server: FakeServer, samples: int = 4, **options: Any) -> Run:
    process = EndpointProcess(Endpoint(server.url), "Which letters?", **options)
    run = Run(process, search.self_consistency(n=samples), seed=1)
    drive(run)
    return run


def true(server: FakeServer) -> tuple[int, int, int]:
    """Prompt and generated tokens, and requests, as the server counted them."""
    assert server.idle()
    counts = server.counts
    return counts.prompt, counts.generated, sum(n for route, n in counts.requests.items() if "completions" in route)


def paid(run: Run) -> tuple[int, int, int]:
    return run.spent.prompt + run.spent.cached, run.spent.generated, run.spent.calls


def test_an_endpoint_needs_no_torch() -> None:
    code = (
        "import sys, anystep.language.endpoint as e; from anystep.solve import engine_for, process_for;"
        "p = process_for('Hello?', e.Endpoint('http://127.0.0.1:9/v1#m', api='chat'));"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("offers", [Offers(), LLAMA_CPP, Offers(owner="nobody", continuous="refused")])
def test_what_is_paid_is_what_the_server_counted(api: Any, offers: Offers) -> None:
    with FakeServer(offers=offers) as server, Endpoint(server.url, api=api) as endpoint:
        for unit in ("completion", "step"):
            process = EndpointProcess(endpoint, "Which letters?", unit=unit, stop="α")  # type: ignore[arg-type]
            run = Run(process, search.particle_filter(n=6), seed=2)
            before = true(server)
            drive(run)
            if unit == "completion" or offers == Offers():
                assert not run.spent.estimated
                assert paid(run) == tuple(a - b for a, b in zip(true(server), before, strict=True))


def test_samples_are_the_model_s_and_seeds_nest() -> None:
    with FakeServer() as server:
        texts = [sampled(server, n).answer.population.states.texts() for n in (4, 8)]  # type: ignore[union-attr]
        assert texts[1][:4] == texts[0] and set(texts[1]) <= set(Toy().outputs()) and len(set(texts[1])) > 1


def test_cached_prompt_tokens_are_shown_free_and_priced() -> None:
    prices = Prices(prompt=2.0, generated=10.0, cached=0.5)
    with FakeServer(caches=True) as server, Endpoint(server.url, prices=prices, concurrency=1) as endpoint:
        run = Run(EndpointProcess(endpoint, "Which letters?"), search.self_consistency(n=5), seed=1)
        drive(run)
        spent = run.spent
        assert spent.cached > 0 and spent.prompt + spent.cached == server.counts.prompt
        assert spent.tokens == spent.prompt + spent.generated and not spent.estimated
        assert spent.money == pytest.approx((2 * spent.prompt + 10 * spent.generated + 0.5 * spent.cached) / 1e6)


@pytest.mark.parametrize("how", ["large", "negative", "missing", "null", "strings", "list"])
def test_figures_that_cannot_be_are_counted_instead_and_marked(how: Any) -> None:
    with FakeServer(says(LONG), faults=Usage(how)) as server:
        run = sampled(server, 2)
        generated = true(server)[1]
        assert run.spent.estimated and generated - 2 <= run.spent.generated <= generated
        assert run.spent.calls == 2 and 0 < run.spent.prompt < 100


def test_a_request_counts_its_prompt_before_it_is_sent() -> None:
    with FakeServer(says(LONG)) as server, Endpoint(server.url) as endpoint:
        process = EndpointProcess(endpoint, "word " * 100)
        run = Run(process, search.self_consistency(n=4), Budget(tokens=60), reserve=0.0)
        drive(run)
        assert server.counts.requests.get("/chat/completions", 0) == 0 and run.spent.tokens == 0
        assert run.answer is not None and run.answer.stopped_because == "tokens"


@pytest.mark.parametrize("budget", [Budget(tokens=40), Budget(generated=25), Budget(money=40e-6)])
def test_a_budget_stops_requests_on_the_wire(budget: Budget) -> None:
    with FakeServer(says(LONG), faults=Gate(after=10)) as server:
        with Endpoint(server.url, prices=Prices(prompt=1.0, generated=1.0)) as endpoint:
            run = Run(EndpointProcess(endpoint, "Go on."), search.self_consistency(n=4), budget, reserve=0.0, seed=1)
            drive(run)  # at the gate forty tokens have come; nothing comes after it
        assert run.answer is not None and run.answer.stopped_because == next(iter(budget.caps()))
        prompt, generated, calls = true(server)
        assert server.counts.cancelled == calls == run.spent.calls and run.spent.estimated
        assert run.spent.generated <= generated <= 10 * calls and run.spent.prompt == prompt


def test_a_budget_of_calls_is_kept() -> None:
    with FakeServer() as server, Endpoint(server.url) as endpoint:
        run = Run(EndpointProcess(endpoint, "Go on."), search.self_consistency(n=4), Budget(calls=2), seed=1)
        drive(run)
        assert run.spent.calls == true(server)[2] <= 2


def test_a_cut_completion_goes_on_where_it_was() -> None:
    def steps(server: FakeServer, cuts: bool) -> tuple[tuple[str, ...], int]:
        with Endpoint(server.url) as endpoint:
            process = EndpointProcess(endpoint, "Go on.")
            keys = some_keys(3)
            states = process.start(keys, Limit(Ledger(), "x")).states
            limit = Limit(Ledger(Budget(generated=20 if cuts else 1000), reserve=0.0), "x")
            reply = process.step(states, keys, limit, "done")
            if cuts:
                assert reply.cut is not None and reply.cut.all() and all(reply.states.texts())
                reply = process.step(reply.states, keys, Limit(Ledger(), "x"), "done")
            assert (reply.status == Status.DONE).all()
            return reply.states.texts(), true(server)[2]

    with FakeServer(says(LONG)) as one, FakeServer(says(LONG), faults=Dressed(seconds=0.001)) as other:
        whole, again = steps(one, False), steps(other, True)
        assert whole[0] == again[0] and again[1] > whole[1]


def test_where_it_cannot_go_on_it_is_asked_anew() -> None:
    with (
        FakeServer(says(LONG), offers=OPENAI, faults=Dressed(seconds=0.001)) as server,
        Endpoint(server.url) as endpoint,
    ):
        process, keys = EndpointProcess(endpoint, "Go on."), some_keys(1)
        states = process.start(keys, Limit(Ledger(), "x")).states
        part = process.step(states, keys, Limit(Ledger(Budget(generated=5), reserve=0.0), "x"), "done")
        assert part.cut is not None and part.cut.all() and part.states.texts()[0]
        rest = process.step(part.states, keys, Limit(Ledger(), "x"), "done")
        assert rest.states.texts() == (LONG,)


def test_first_finish_cancels_the_others_at_the_server() -> None:
    slow = Gate(after=1)

    def fault(request: Request) -> Gate | None:
        return None if request.number == 2 else slow

    with FakeServer(says("A short one."), faults=fault) as server, Endpoint(server.url) as endpoint:
        run = Run(EndpointProcess(endpoint, "Race!"), search.first_finish(n=5), seed=1)
        drive(run)
        assert run.answer is not None and run.answer.text == "A short one."
        assert server.idle() and server.counts.cancelled == 4 and server.counts.in_flight == 0


def test_cancelling_ends_what_is_in_flight_even_where_the_server_hangs() -> None:
    gate = Gate(after=2)
    with FakeServer(says(LONG), faults=gate) as server, Endpoint(server.url) as endpoint:
        run = Run(EndpointProcess(endpoint, "Go on."), search.self_consistency(n=6), seed=1)
        thread = threading.Thread(target=lambda: (gate.wait(6), run.cancel()))
        thread.start()
        drive(run)
        thread.join()
        assert run.answer is not None and run.answer.stopped_because == "cancelled"
        assert server.idle() and server.counts.cancelled == 6


def test_a_deadline_is_seen_while_nothing_comes() -> None:
    with FakeServer(faults=Hang(after=0)) as server, Endpoint(server.url) as endpoint:
        run = Run(EndpointProcess(endpoint, "Hello?"), search.self_consistency(n=3), Budget(seconds=0.3), seed=1)
        drive(run)
        assert run.answer is not None and run.answer.stopped_because == "seconds"
        assert server.idle() and server.counts.in_flight == 0


class Interrupts(Ledger):
    """Raises what Ctrl-C raises, at the second payment."""

    def pay(self, cost: Any, purpose: str) -> bool:
        if self.spent.generated:
            raise KeyboardInterrupt
        return super().pay(cost, purpose)


def test_an_interrupt_leaves_nothing_on_the_wire_and_is_accounted_for() -> None:
    gate = Gate(after=3)
    with FakeServer(says(LONG), faults=gate) as server, Endpoint(server.url) as endpoint:
        process, keys, ledger = EndpointProcess(endpoint, "Go on."), some_keys(5), Interrupts()
        states = process.start(keys, Limit(ledger, "x")).states
        with pytest.raises(KeyboardInterrupt):
            process.step(states, keys, Limit(ledger, "x"), "done")
        assert server.idle() and server.counts.in_flight == 0
        assert ledger.spent.calls >= 1 and ledger.spent.estimated


def test_concurrency_is_kept_over_all_runs_and_connections_are_used_again() -> None:
    with FakeServer() as server, Endpoint(server.url, concurrency=3) as endpoint:
        runs = [Run(EndpointProcess(endpoint, f"Letters {i}?"), search.self_consistency(n=6), seed=i) for i in range(4)]
        drive(*runs)
        assert server.counts.peak <= 3 and server.counts.connections <= 4 and true(server)[2] == 24


def test_messages_and_their_parts_pass_through_unchanged() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}
    audio = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "What is \u2028 this?"}, image, audio]},
    ]
    with FakeServer(says("A cat.")) as server, Endpoint(server.url) as endpoint:
        answer = anystep.solve(messages, model=endpoint, method="greedy")
        assert answer.text == "A cat." and server.requests[0].body["messages"] == messages
        process = EndpointProcess(endpoint, messages)
        states = process.start(some_keys(2), Limit(Ledger(), "x")).states
        assert states.prompts() == ("What is \u2028 this?",) * 2
        assert process.load(process.dump(states)) == states and isinstance(states, Transcripts)


def test_extra_fields_are_sent_as_they_are() -> None:
    extra = {"response_format": {"type": "json_object"}, "reasoning_effort": "low", "guided_json": {"type": "object"}}
    with FakeServer(offers=Offers(accepts=tuple(extra))) as server:
        sampled(server, 1, extra=extra)
        assert {name: server.requests[-1].body[name] for name in extra} == extra


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_log_probabilities_are_the_paths_own(api: Any) -> None:
    law = Toy().outputs()
    with FakeServer() as server, Endpoint(server.url, api=api) as endpoint:
        process = EndpointProcess(endpoint, "Which letters?", unit="step", stop="α", logprobs=True)
        assert process.logp == "mass"
        run = Run(process, search.particle_filter(n=12), seed=4)
        drive(run)
        population = run.answer.population  # type: ignore[union-attr]
        exact = [float(law[text]) for text in population.states.texts()]  # type: ignore[union-attr]
        assert np.allclose(np.exp(population.logp), exact)  # type: ignore[union-attr]
        assert EndpointProcess(endpoint, "x", logprobs=True, temperature=0.7).logp == "unknown"


def test_choices_share_a_request_and_its_prompt() -> None:
    for offers in (Offers(), LLAMA_CPP):
        with FakeServer(offers=offers) as server:
            run = sampled(server, 8, n=4)
            assert paid(run) == true(server) and run.spent.calls == 2 and not run.spent.estimated
            assert run.finished == 8


def test_a_server_that_gives_fewer_choices_is_said() -> None:
    with FakeServer(offers=Offers(n="ignored")) as server:
        run = sampled(server, 4, n=4)
        assert run.finished == 1 and run.answer is not None and run.answer.failed == 3
        assert "asked for n=4 choices" in run.answer.errors[0]
    with (
        FakeServer(offers=Offers(n="refused")) as server,
        pytest.raises(AllFailed, match="argument supplied: n"),
    ):
        sampled(server, 4, n=4)


@pytest.mark.parametrize("lacks", [{"seed": "refused"}, {"usage": "refused"}, {"continuous": "refused"}])
def test_what_only_we_wanted_is_left_out_where_it_is_refused(lacks: dict[str, Any]) -> None:
    with FakeServer(offers=Offers(**lacks)) as server, Endpoint(server.url, concurrency=1) as endpoint:
        run = Run(EndpointProcess(endpoint, "Which letters?"), search.self_consistency(n=3), seed=1)
        drive(run)
        assert run.finished == 3 and run.answer is not None and run.answer.failed == 0
        assert run.spent.calls == true(server)[2] == 4  # the refusal was a call too


def test_steps_are_refused_where_a_prefix_cannot_be_continued() -> None:
    with FakeServer(offers=OPENAI) as server, Endpoint(server.url) as endpoint:
        process = EndpointProcess(endpoint, "Which letters?", unit="step")
        drive(Run(process, search.self_consistency(n=2)))  # whole completions need no steps
        with pytest.raises(Unsupported, match=r"cannot continue a prefix \(400: .*use unit='completion'"):
            drive(Run(process, search.particle_filter(n=2)))


def test_log_probabilities_are_refused_where_there_are_none() -> None:
    with FakeServer(offers=Offers(logprobs="refused")) as server, pytest.raises(Unsupported, match="gives none"):
        EndpointProcess(Endpoint(server.url), "x", logprobs=True)


@pytest.mark.parametrize(
    "offers", [Offers(), Offers(stop_reason=False, owner="nobody"), LLAMA_CPP, Offers(owner="nobody")]
)
def test_steps_end_with_their_stop_text_whatever_the_server_tells(offers: Offers) -> None:
    text = "First step.\n\nSecond step.\n\nThe end."
    with FakeServer(says(text), offers=offers) as server, Endpoint(server.url) as endpoint:
        process, keys = EndpointProcess(endpoint, "Go.", unit="step", stop="\n\n"), some_keys(1)
        states, found = process.start(keys, Limit(Ledger(), "x")).states, []
        for status in (Status.LIVE, Status.LIVE, Status.DONE):
            reply = process.step(states, keys, Limit(Ledger(), "x"), "step")
            assert reply.status.tolist() == [status]
            states = reply.states
            found.append(states.texts()[0])
        assert found == ["First step.\n\n", "First step.\n\nSecond step.\n\n", text]


@pytest.mark.parametrize("offers", [Offers(), Offers(stop_reason=False, owner="nobody"), LLAMA_CPP])
def test_an_end_text_belongs_to_the_completion_and_ends_it(offers: Offers) -> None:
    with FakeServer(says("It is 4. Or is it 5. Yes."), offers=offers) as server:
        run = sampled(server, 2, end="4.")
        assert run.answer is not None and run.answer.text == "It is 4." and run.answer.failed == 0


def test_a_route_that_is_missing_is_not_used() -> None:
    with FakeServer(offers=Offers(chat=False)) as server:
        run = sampled(server, 4)
        assert run.finished == 4 and server.counts.requests["/completions"] == 4
    with FakeServer(offers=Offers(chat=False, owner="nobody")) as server:
        assert sampled(server, 4).finished == 4
    with FakeServer(offers=Offers(chat=False)) as server, pytest.raises(AllFailed, match="404 Not Found"):
        anystep.solve([{"role": "user", "content": "Hello"}], model=Endpoint(server.url))


def test_a_capped_completion_is_done_or_failed_as_asked() -> None:
    with FakeServer(says(LONG)) as server:
        run = sampled(server, 2, max_tokens=5)
        assert run.finished == 2 and run.spent.generated == 10
        with pytest.raises(AllFailed, match="reached max_tokens=5 without an end"):
            sampled(server, 2, max_tokens=5, at_cap="failed")


@pytest.mark.parametrize(
    ("script", "faults", "error"),
    [(says("Half", finish="content_filter"), None, "content filter"),
     (says(LONG), Edited("no choices"), "the stream ended before it began after 5 attempts")],
)  # fmt: skip
def test_what_is_no_answer_is_a_failed_state(script: Any, faults: Plan, error: str) -> None:
    with FakeServer(script, faults=faults) as server, pytest.raises(AllFailed, match=error):
        drive(Run(EndpointProcess(Endpoint(server.url, sleep=_now), "Hello?"), search.sample(n=2)))


async def _now(seconds: float) -> None:
    pass


def test_an_empty_reply_is_no_vote() -> None:
    with FakeServer(says("")) as server:
        run = sampled(server, 3)
        assert run.answer is not None and run.answer.value is None and run.finished == 3


def test_rows_of_different_prompts_share_a_step_and_each_pays_its_own() -> None:
    with FakeServer() as server, Endpoint(server.url) as endpoint:
        one, other = (
            EndpointProcess(endpoint, "Which letters?"),
            EndpointProcess(endpoint, "And which, would you say, now?"),
        )
        assert one.merges() == other.merges() != EndpointProcess(endpoint, "x", temperature=0.5).merges()
        keys, ledgers = some_keys(2), [Ledger(), Ledger()]
        limits = [Limit(ledger, "x") for ledger in ledgers]
        states = one.start(keys[:1], limits[0]).states.join(other.start(keys[1:], limits[1]).states)
        one.step(states, keys, JointLimit(limits, [1, 1]), "done")
        assert ledgers[0].spent.prompt < ledgers[1].spent.prompt
        assert ledgers[0].spent.tokens + ledgers[1].spent.tokens == sum(true(server)[:2])


def test_a_judge_s_reward_reads_what_was_asked_and_said() -> None:
    seen = []

    def longest(states: Any) -> list[float]:
        seen.extend(zip(states.prompts(), states.texts(), strict=True))
        return [len(text) for text in states.texts()]

    with FakeServer() as server:
        answer = anystep.solve(
            "Which letters?",
            model=Endpoint(server.url),
            method=search.best_of_n(n=6, reward=reward(longest, range=(0, 9))),
        )
        assert answer.text == max((text for _, text in seen), key=len) and {p for p, _ in seen} == {"Which letters?"}


def test_pieces_are_shown_as_they_come() -> None:
    seen: dict[int, str] = {}
    with FakeServer(says("One step.\n\nAnother.")) as server, Endpoint(server.url) as endpoint:
        process = EndpointProcess(endpoint, "Go.", unit="step")
        show = lambda key, piece: seen.update({key: seen.get(key, "") + piece})  # noqa: E731
        drive(Run(process, search.particle_filter(n=1), show=show))
        assert list(seen.values()) == ["One step.\n\n", "Another."]


def test_the_only_model_is_found_and_several_are_listed() -> None:
    with FakeServer(models=("only",)) as server:
        assert Endpoint(server.url).model == "only"
    with FakeServer(models=("a", "b")) as server:
        with pytest.raises(UsageError, match=r"lists 2 models \(a, b\); name one: 'http://.*/v1#a'"):
            EndpointProcess(server.url, "Hello?")
        answer = anystep.solve("Hello?", model=f"{server.url}#b", method="greedy")
        assert answer.text is not None and server.requests[-1].body["model"] == "b"
        assert server.requests[-1].body["temperature"] == 0.0
    with pytest.raises(ModelError, match="does not answer"):
        EndpointProcess(server.url, "Hello?")


def test_a_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYSTEP_API_KEY", "secret-key")
    with FakeServer(api_key="secret-key") as server, Endpoint(server.url) as endpoint:
        drive(Run(EndpointProcess(endpoint, "Hello?"), search.sample(n=1)))
        assert "secret-key" not in repr(endpoint) + repr(vars(EndpointProcess(endpoint, "x")))
    with FakeServer(api_key="other") as server, pytest.raises(AllFailed, match="401 Unauthorized: Incorrect API key"):
        drive(Run(EndpointProcess(Endpoint(server.url, "toy"), "Hello?"), search.sample(n=1)))


def test_polls_are_free_and_answers_do_not_depend_on_them() -> None:
    ledger = CountingLedger()
    with FakeServer(faults=Dressed(seconds=0.02)) as server, Endpoint(server.url) as endpoint:
        run = Run(EndpointProcess(endpoint, "Which letters?"), search.self_consistency(n=2), seed=1, ledger=ledger)
        drive(run)
        assert paid(run) == true(server)


@pytest.mark.parametrize(
    "options",
    [{"unit": "token"}, {"unit": "word"}, {"stop": ""}, {"end": ("",)}, {"temperature": -1}, {"top_p": 0},
     {"max_tokens": 0}, {"n": 0}, {"at_cap": "maybe"}, {"extra": {"seed": 1}}, {"extra": {"stream": False}}],
)  # fmt: skip
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="EndpointProcess"):
        EndpointProcess(Endpoint("http://127.0.0.1:9/v1#m", api="chat"), "Hello?", **options)


@pytest.mark.parametrize("prompt", ["", [], [3], None, [{"role": "user", "content": object()}]])
def test_what_is_no_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(UsageError):
        EndpointProcess(Endpoint("http://127.0.0.1:9/v1#m", api="chat"), prompt)


@pytest.mark.parametrize(
    ("url", "options"),
    [("localhost:8080", {}), ("ftp://x/v1", {}), ("http://", {}), (None, {}), ("http://x/v1", {"api": "tcp"}),
     ("http://x/v1", {"concurrency": 0}), ("http://x/v1", {"timeout": 0}), ("http://x/v1", {"retries": -1}),
     ("http://x/v1#a", {"model": "b"}), ("http://x/v1", {"patience": float("inf")})],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(url: Any, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="Endpoint"):
        Endpoint(url, **options)


def test_prices_are_checked_and_read() -> None:
    assert Prices.read("0.15,0.6") == Prices(0.15, 0.6) and Prices.read("1, 2, 0.5") == Prices(1, 2, 0.5)
    for text in ("1", "a,b", "1,2,3,4", ""):
        with pytest.raises(UsageError, match="money for a million tokens"):
            Prices.read(text)
    with pytest.raises(UsageError, match="Prices"):
        Prices(prompt=-1)
