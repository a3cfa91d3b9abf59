"""Turns by a served model, over a chat route that knows of tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from anystep.errors import UsageError
from anystep.language.endpoint.process import EndpointProcess
from anystep.language.endpoint.row import Row
from anystep.language.endpoint.server import Endpoint
from anystep.language.endpoint.states import Transcript, Transcripts
from anystep.language.tools.dialogues import Call, Message
from anystep.language.tools.tool import Tool
from anystep.language.tools.turns import Turn, Turns
from anystep.process import Status


class ChatTurns(Turns):
    """Each turn is one request with the conversation and the tools; the server reads the calls out of what the model
    wrote. Names and arguments are taken as they come, and checked like any model's.

    A turn of max_tokens fails, and so does one whose stream broke off. One that a limit cut is asked for anew. extra:
    further fields of the request, such as tool_choice. What the reply carries besides text and calls (thinking that is
    delivered apart) is not sent again.
    """

    def __init__(
        self,
        server: Endpoint | str,
        tools: Sequence[Tool],
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int = 1024,
        extra: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        server = Endpoint(server) if isinstance(server, str) else server
        if server.api == "completions":
            raise UsageError("Tools need the chat route: give an Endpoint with api='chat' or 'auto'.")
        if "tools" in (extra or {}):
            raise UsageError("ToolProcess(extra={'tools': ...}): give functions, ToolProcess(server, question, tools).")
        self.process = ChatTurn(
            server,
            "?",  # each conversation brings its own prompt
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            at_cap="failed",
            chat=True,
            extra={**(extra or {}), "tools": [tool.described() for tool in tools]},
            name=name,
        )

    def begin(self, messages: Sequence[Message], before: Transcripts | None) -> Transcripts:
        return Transcripts((Transcript(tuple(messages)),))

    def read(self, states: Transcripts) -> tuple[Turn, ...]:
        return tuple(_turn(row) for row in states.rows)


class ChatTurn(EndpointProcess):
    """One turn: text, calls, or both."""

    @property
    def continues(self) -> bool:
        """Never: what a server can go on with is text, and a turn may be in the middle of a call."""
        return False

    @property
    def undecided(self) -> bool:
        return False

    @property
    def goes_on(self) -> bool:
        return False

    @property
    def unable(self) -> str:
        return "a turn with tools cannot be continued"

    def ended(self, row: Row) -> bool:
        if row.asked and row.finish == "length":
            row.status, row.error = Status.FAILED, f"reached max_tokens={self.max_tokens} in the middle of a turn"
        elif row.asked and row.finish != "content_filter":
            row.status = Status.DONE
        else:
            return super().ended(row)
        return True


def _turn(row: Transcript) -> Turn:
    """The message as it is sent again, and its calls; one that came without an id is given one."""
    before = sum(len(m.get("tool_calls") or ()) for m in row.prompt if isinstance(m, Mapping))
    calls = tuple(
        Call(name, arguments or "{}", made or f"call-{before + i}")
        for i, (made, name, arguments) in enumerate(row.asked, 1)
    )
    message: dict[str, Any] = {"role": "assistant", "content": row.text or None if calls else row.text}
    if calls:
        message["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": _sendable(c.arguments)}}
            for c in calls
        ]
    return Turn(message, calls)


def _sendable(arguments: str) -> str:
    """Arguments as they may be sent again: some servers read them, and refuse a conversation with what is no object."""
    try:
        return arguments if isinstance(json.loads(arguments), dict) else "{}"
    except (ValueError, RecursionError):
        return "{}"
