"""How is a model that uses tools searched over? Tools, trajectories of turns and results, and who speaks in them."""

from __future__ import annotations

from anystep.language.tools.dialogues import Call, Dialogue, Dialogues
from anystep.language.tools.process import ToolProcess
from anystep.language.tools.script import Saying, Scripted, asks
from anystep.language.tools.tool import Tool, tool
from anystep.language.tools.turns import Turn, Turns

__all__ = [
    "Call",
    "Dialogue",
    "Dialogues",
    "Saying",
    "Scripted",
    "Tool",
    "ToolProcess",
    "Turn",
    "Turns",
    "asks",
    "tool",
]
