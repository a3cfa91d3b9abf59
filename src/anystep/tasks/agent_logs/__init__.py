"""Which step made a run of agents fail? Logs that can be executed again, and what a model should write of them."""

from anystep.tasks.agent_logs.log import (
    AGENTS,
    CAUSES,
    AgentLog,
    Instruction,
    Turn,
    agent_logs,
    attributed,
    digits,
    draw,
    instruction,
    logs,
)
from anystep.tasks.agent_logs.scaffold import Predictor, Suspect, by_replay, executed, read, scaffold, verdict

__all__ = [
    "AGENTS",
    "CAUSES",
    "AgentLog",
    "Instruction",
    "Predictor",
    "Suspect",
    "Turn",
    "agent_logs",
    "attributed",
    "by_replay",
    "digits",
    "draw",
    "executed",
    "instruction",
    "logs",
    "read",
    "scaffold",
    "verdict",
]
