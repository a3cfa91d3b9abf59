"""Which task is a state about? Its prompt says so, in whatever words a chat template put around it."""

from __future__ import annotations

from collections.abc import Sequence

from anystep.tasks.task import Task


def asked_by(task: Task) -> str:
    """What a task asks: its prompt, or its last message's content."""
    return task.prompt if isinstance(task.prompt, str) else str(task.prompt[-1].get("content", ""))


def which(asked: Sequence[str], prompt: str) -> int | None:
    """The place of the task that this prompt asks, the longest that stands in it; the only one is always meant."""
    if len(asked) == 1:
        return 0
    within = [i for i, text in enumerate(asked) if text == prompt or (text and text in prompt)]
    return max(within, key=lambda i: len(asked[i])) if within else None
