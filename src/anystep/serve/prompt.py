"""Chat messages as the text that a model continues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anystep.errors import AnystepError
from anystep.serve.refusal import Refused
from anystep.serve.shapes import Message


def continues(messages: Sequence[Message], final: bool | None, fresh: bool | None) -> bool:
    """Whether the last message is the beginning of the answer.

    It is where it comes from the assistant, unless `add_generation_prompt: true` or `continue_final_message: false`
    asks for a turn of its own. `continue_final_message: true` insists on it.
    """
    last = messages[-1].role == "assistant"
    if final and fresh:
        raise _wrong("continue_final_message and add_generation_prompt exclude each other; set one of them.", "final")
    if final and not last:
        raise _wrong("continue_final_message needs a last message of role assistant.", "final")
    if fresh is False and not (final or (final is None and last)):
        raise _wrong(
            "without a generation prompt a model can only go on with the last message: end with role assistant and set "
            "continue_final_message: true.",
            "fresh",
        )
    return last and final is not False and not fresh


def written(tokenizer: Any, messages: Sequence[Message], go_on: bool) -> str:
    """The text that the model reads.

    With a chat template: the conversation, then the opening of the assistant's turn, then, where it goes on with the
    last message, that message as it is. Without a template: the user's text, and the beginning of the answer behind it.
    """
    turns, prefix = (messages[:-1], messages[-1].content) if go_on else (messages, "")
    if tokenizer.template is None:
        if [m.role for m in turns] != ["user"]:
            raise _wrong(
                "this model has no chat template and reads one user message, and the beginning of an answer after it.",
                "messages",
            )
        return turns[0].content + prefix
    named = [{"role": "system" if m.role == "developer" else m.role, "content": m.content} for m in turns]
    try:
        opened: str = tokenizer.chat(named)
    except AnystepError as error:
        raise _wrong(str(error), "messages") from None
    return opened + prefix


def asked(messages: Sequence[Message]) -> str:
    """What a reward that reads the question is told: the last thing the user said."""
    return next((m.content for m in reversed(messages) if m.role == "user"), messages[-1].content)


def _wrong(message: str, param: str) -> Refused:
    name = {"final": "continue_final_message", "fresh": "add_generation_prompt"}.get(param, param)
    return Refused(message, param=name, code="invalid_value")
