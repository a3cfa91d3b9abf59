"""Does a client hold against a hostile world? OpenAI-compatible servers for tests: a faulty one, a counting proxy."""

from anystep.testing.server.counts import Counts
from anystep.testing.server.fake import FakeServer
from anystep.testing.server.faults import (
    Break,
    Cut,
    Fault,
    Gate,
    Hang,
    Inject,
    Plan,
    Reply,
    busy,
    empty,
    error_event,
    page,
    status,
    too_long,
)
from anystep.testing.server.odd import Dressed, Edited, Garbled, Usage
from anystep.testing.server.offers import LLAMA_CPP, OPENAI, VLLM, Offers
from anystep.testing.server.proxy import CountingProxy
from anystep.testing.server.script import Piece, Request, Said, Script, ToolCall, Toy, pieces, says, words

__all__ = [
    "LLAMA_CPP",
    "OPENAI",
    "VLLM",
    "Break",
    "CountingProxy",
    "Counts",
    "Cut",
    "Dressed",
    "Edited",
    "FakeServer",
    "Fault",
    "Garbled",
    "Gate",
    "Hang",
    "Inject",
    "Offers",
    "Piece",
    "Plan",
    "Reply",
    "Request",
    "Said",
    "Script",
    "ToolCall",
    "Toy",
    "Usage",
    "busy",
    "empty",
    "error_event",
    "page",
    "pieces",
    "says",
    "status",
    "too_long",
    "words",
]
