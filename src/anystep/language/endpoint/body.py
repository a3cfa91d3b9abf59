"""A request's body: what it asks for, and in which of the dialects that servers speak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from anystep import keys as lineage
from anystep.language.endpoint.capabilities import Found
from anystep.language.endpoint.states import Prompt
from anystep.language.endpoint.trouble import Trouble

if TYPE_CHECKING:
    from anystep.language.endpoint.process import EndpointProcess
    from anystep.language.endpoint.server import Endpoint

SEED_LANE = 6  # of a row's key, apart from those of other draws
CAPS = ("max_tokens", "max_completion_tokens")
CONTINUES = ("continue_final_message", "add_generation_prompt")
MOST_STOPS = 4  # that OpenAI takes; others take more, but none must
REFUSED = frozenset({400, 404, 405, 415, 422, 501})  # statuses by which servers refuse a parameter


def seed(server: Endpoint, key: int, position: int) -> int:
    """A 31-bit seed from a row's key. Where a server's draws belong to positions the key alone gives it, so that a cut
    completion goes on as it would have; elsewhere the position too, or what follows a cut would repeat its draws."""
    at = 0 if server.kind.by_position else position
    return int(float(lineage.uniforms(key, at, SEED_LANE)) * 2**31)


def told_stops(server: Endpoint, stops: Sequence[str]) -> bool:
    """Whether the server can be left to stop: then it must tell a stop text from the completion's end. Elsewhere the
    client watches the text and hangs up at a stop."""
    keeps = server.kind.keeps is not None and server.kind.keeps not in server.refused
    return 0 < len(stops) <= MOST_STOPS and (keeps or server.says)


def body(
    process: EndpointProcess, prompt: Prompt, begun: str, cap: int, stops: Sequence[str], seeded: int, n: int = 1
) -> tuple[str, dict[str, Any]]:
    """The route and the body that ask for up to `cap` tokens after `prompt` and the reply's beginning `begun`."""
    server, refused = process.server, process.server.refused
    asked: dict[str, Any] = {"model": server.model}
    if process.chat:
        asked |= chat(server, prompt, begun)
    else:
        asked["prompt"] = str(prompt) + begun
    asked[cap_name(server, process.chat)] = cap
    asked |= {"temperature": process.temperature, "top_p": process.top_p, "seed": seeded}
    asked |= dict(server.kind.plain)
    asked |= {"stream": True, "stream_options": {"include_usage": True}}
    if server.kind.continuous and n == 1 and "continuous_usage_stats" not in refused:
        asked["stream_options"]["continuous_usage_stats"] = True
    if told_stops(server, stops):
        asked["stop"] = list(stops)
        if server.kind.keeps is not None:
            asked[server.kind.keeps] = True
    for name in refused & (own(process) - set(CAPS)):
        asked.pop(name, None)
    if "stream" in refused:
        asked.pop("stream_options", None)
    extra = dict(process.extra)
    if process.logprobs:
        asked["logprobs"] = True if process.chat else int(extra.pop("top_logprobs", 1))
    if n > 1:
        asked["n"] = n
    return ("/chat/completions" if process.chat else "/completions"), {**asked, **extra}


def chat(server: Endpoint, prompt: Prompt, begun: str) -> dict[str, Any]:
    """A chat's messages, the last one to be gone on with where the reply has begun, and the fields that ask for it."""
    messages: list[Mapping[str, Any]] = (
        [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    )
    if not begun:
        return {"messages": messages}
    last, flags = server.probes.continued(begun)
    return {"messages": [*messages, last], **flags}


def cap_name(server: Endpoint, chat: bool) -> str:
    """What the longest reply is called."""
    name = server.kind.cap if chat else CAPS[0]
    return next(other for other in CAPS if other != name) if name in server.refused else name


def uncontinued(process: EndpointProcess, trouble: Trouble) -> bool:
    """Whether the server refused to go on with a reply, which is then known of it."""
    said = f"{trouble.parameter or ''} {trouble.said}"
    if trouble.status not in REFUSED or not any(name in said for name in CONTINUES):
        return False
    process.server.probes.learn("continuation", Found(False, f"{trouble.status}: {trouble.said}"))
    return True


def own(process: EndpointProcess) -> set[str]:
    """Parameters that are only our way of asking: a server that refuses one is asked without it."""
    found = {"seed", "stream", "stream_options", "continuous_usage_stats", *CAPS, *process.server.kind.plain}
    found |= {process.server.kind.keeps} if process.server.kind.keeps else set()
    return found | {name for name in ("temperature", "top_p") if getattr(process, name) == 1.0}


def dropped(process: EndpointProcess, asked: Mapping[str, Any], trouble: Trouble) -> bool:
    """Whether the server refused one of our own parameters, which from now on is left out (or said otherwise)."""
    if trouble.status not in REFUSED:
        return False
    options = asked.get("stream_options") or {}
    sent = [name for name in own(process) if name in asked or name in options]
    said = f"{trouble.parameter or ''} {trouble.said}"
    named = [name for name in sorted(sent, key=len, reverse=True) if name in said]
    exact = [name for name in named if name == trouble.parameter or trouble.parameter == f"stream_options.{name}"]
    if not named:
        return False
    name = (exact or named)[0]
    if name in CAPS and set(CAPS) & process.server.refused - {name}:
        return False  # it has been called by its other name already: it is too large, then
    extras = {"continuous_usage_stats", *process.server.kind.plain, process.server.kind.keeps or ""}
    process.server.refused |= extras if name in extras else {name}  # a strict server refuses one as it does another
    return True
