"""A race on an endpoint: the first reply to end answers, however many end while the others are being cancelled."""

from __future__ import annotations

import pytest

from anystep import Run, Status, drive, search
from anystep.language.endpoint import Endpoint, EndpointProcess
from anystep.testing.checks_process import some_keys
from anystep.testing.limits import unlimited
from anystep.testing.server import FakeServer, says


@pytest.fixture
def process():
    with FakeServer(says("One.", "Two words.", "And three words.")) as server, Endpoint(server.url) as endpoint:
        yield EndpointProcess(endpoint, "Say something.")


@pytest.mark.parametrize("k", [1, 3, 5])
def test_no_more_than_k_are_done(process, k):
    keys = some_keys(8)
    states = process.start(keys, unlimited()).states
    limit = unlimited()
    reply = process.step(states, keys, limit, k)
    assert int((reply.status == Status.DONE).sum()) == k
    assert reply.cut.tolist() == (reply.status == Status.LIVE).tolist()
    assert reply.cost.same(limit.used)


def test_one_that_came_too_late_stands_where_it_stood_and_goes_on_as_if_it_had_not_been_asked(process):
    keys = some_keys(8)
    begun = process.start(keys, unlimited()).states
    whole = process.step(begun, keys, unlimited(), "done")
    part = process.step(begun, keys, unlimited(), 1)
    late = part.cut.nonzero()[0]
    again = process.step(part.states.take(late), keys[late], unlimited(), "done")
    assert process.texts(again.states) == tuple(process.texts(whole.states)[i] for i in late)


def test_the_answer_is_of_one_that_was_done(process):
    (answer,) = drive(Run(process, search.first_finish(n=6)))
    assert answer.finished == 1 and answer.population.done.sum() == 1 and answer.row == 0
    assert answer.text in ("One.", "Two words.", "And three words.")
