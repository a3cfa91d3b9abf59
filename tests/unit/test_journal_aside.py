"""What a run pays beside its calls' replies is in its journal too, and charged again when that is replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anystep import Budget, Cost, Run, drive, journal, search
from anystep.keys import Keys
from anystep.language.endpoint import Endpoint, EndpointProcess
from anystep.ledger import Limit
from anystep.process import Process, Stepped, Until
from anystep.testing.oracles import EnumerableLM, JudgePotential
from anystep.testing.server import FakeServer, Offers

LOOK = Cost(calls=1, prompt=3, money=0.1, estimated=True)


class Looking(EnumerableLM):
    """Charges a look around before its first and its second step, under a name of its own."""

    looks = 0

    def step(self, states: Any, keys: Keys, limit: Limit, until: Until) -> Stepped:
        Looking.looks += 1
        if Looking.looks in (1, 2):
            limit.ledger.charge(LOOK, "look")
        return super().step(states, keys, limit, until)


def costs(run: Run) -> dict[str, Cost]:
    return {name: Cost(c.prompt, c.cached, c.generated, c.attended, c.evaluations, c.flops, c.calls, 0.0, c.money)
            for name, c in run.ledger.by.items()}  # fmt: skip


def test_every_prefix_of_a_journal_charges_what_was_charged_by_then() -> None:
    process: Process = Looking()
    method = search.particle_filter(n=3, potential=JudgePotential(lambda tokens: float(len(tokens))))
    Looking.looks = 0
    run = Run(process, method)
    seen = []
    while run.calls:
        run.tell([call.perform() for call in run.calls])
        seen.append(costs(run))
    assert len(seen) > 5 and seen[-1]["look"].calls == 2
    for rounds in range(len(seen)):
        again = Run(process, method)
        again.replay(list(run.journal)[: rounds + 1])
        assert costs(again) == seen[rounds]


def test_probes_of_an_endpoint_are_paid_once_over_all_lives(tmp_path: Path) -> None:
    with FakeServer(offers=Offers(owner="someone")) as server:

        def process() -> EndpointProcess:
            return EndpointProcess(Endpoint(server.url), "Which letters?", max_tokens=12)

        method, path = search.self_consistency(n=3), tmp_path / "j"
        run = Run(process(), method, Budget(calls=100), journal=journal.open(path))
        drive(run)
        paid = run.ledger.by
        assert paid["toy.probe"].calls == 1 and run.spent.calls == len(server.requests)
        story = journal.read(path)
        assert story.costs().keys() == paid.keys() and story.costs()["toy.probe"].calls == 1
        resumed = journal.resume(path, process(), method)
        assert {k: c.calls for k, c in resumed.ledger.by.items()} == {k: c.calls for k, c in paid.items()}
        assert resumed.spent.tokens == run.spent.tokens
