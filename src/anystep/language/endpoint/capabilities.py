"""What can this server do? Known from its kind where that settles it, else found out by requests of one token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from anystep.errors import ModelError
from anystep.keys import named
from anystep.language.endpoint.attempt import Asks, Closed, Inbox
from anystep.language.endpoint.deltas import told
from anystep.language.endpoint.trouble import passing, pause
from anystep.language.endpoint.usage import usage_of
from anystep.ledger import Cost

if TYPE_CHECKING:
    from anystep.language.endpoint.server import Endpoint

WORD = "one two three four"  # what a probe says; twice itself, it costs twice as much and no turn of a chat
JSON_SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
ASKED = [{"role": "user", "content": "Count to four in words."}]


@dataclass(frozen=True)
class Found:
    """One capability: whether it is there (None: it could not be told), and how, or what the server said."""

    there: bool | None
    note: str = ""


@dataclass(frozen=True)
class Capabilities:
    """Everything that methods may need of a server, each with whether it is there and how that is known."""

    chat: Found
    completions: Found
    continuation: Found
    n: Found
    logprobs: Found
    seed: Found
    stream: Found
    usage: Found
    continuous_usage: Found
    stop_told: Found
    guided: Found
    tokenize: Found
    reasoning_effort: Found
    thinking_budget: Found

    def rows(self) -> list[tuple[str, str, str]]:
        """As a table: name, yes or no or unknown, note."""
        words = {True: "yes", False: "no", None: "unknown"}
        return [
            (f.name.replace("_", " "), words[getattr(self, f.name).there], getattr(self, f.name).note)
            for f in fields(self)
        ]


class Prober:
    """Asks a server small questions, each once, and keeps the answers and what they cost."""

    def __init__(self, server: Endpoint) -> None:
        self.server, self.cost, self.spent = server, Cost(), Cost()
        self._found: dict[str, Found] = {}
        self.continue_by = "flags"  # or "trailing", "prefix": see `continued`

    def known(self, name: str) -> bool:
        return name in self._found

    def learn(self, name: str, found: Found) -> None:
        """What was found out otherwise."""
        with self.server.lock:
            self._found[name] = found

    def __getitem__(self, name: str) -> Found:
        """Whether the server has it. A server that does not answer is asked again the next time."""
        with self.server.lock:
            if name not in self._found:
                probe: Callable[[], Found] = getattr(self, f"_{name}")
                try:
                    self._found[name] = probe()
                except ModelError as error:
                    return Found(None, str(error))
            return self._found[name]

    def owed(self) -> Cost:
        """What has been spent on probes, and was not asked for before."""
        with self.server.lock:
            cost, self.cost = self.cost, Cost()
            self.spent += cost
            return cost

    def all(self) -> Capabilities:
        return Capabilities(**{f.name: self[f.name] for f in fields(Capabilities)})

    def continued(self, begun: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """A chat's last message that is to be gone on with, and the fields that ask for it."""
        message: dict[str, Any] = {"role": "assistant", "content": begun}
        match self.continue_by:
            case "trailing":
                return message, {}
            case "prefix":
                return {**message, "prefix": True}, {}
        return message, {"continue_final_message": True, "add_generation_prompt": False}

    def _ask(self, tokens: int = 1, chat: bool | None = None, **more: Any) -> tuple[int, Any]:
        """One short completion, not streamed, whose cost is kept."""
        chat = self._chats() if chat is None else chat
        server = self.server
        route, asked = ("/chat/completions", {"messages": ASKED}) if chat else ("/completions", {"prompt": WORD})
        cap = server.kind.cap if chat and server.kind.cap not in server.refused else "max_tokens"
        body = {"model": server.model, cap: tokens, **asked, **more}
        status, found = self._answered(route, body)
        usage = usage_of(found.get("usage")) if isinstance(found, dict) else None
        self.cost += Cost(calls=1)
        if status == 200:
            sure = usage is not None and "n" not in more  # llama.cpp reports one choice of several
            self.cost += Cost() if usage is None else server.prices.of(usage)
            self.cost += Cost(estimated=not sure)
        return status, found

    def _answered(self, route: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Asked again as any request is. Raises ModelError where nothing that can be read comes."""
        server = self.server
        for attempt in range(1, server.retries + 2):
            try:
                status, found = server.ask("POST", route, body)
                if not passing(status) and (status != 200 or isinstance(found, dict)):
                    return status, found
                error = ModelError(f"{server.url} cannot be probed now (status {status}: {told(found)}).")
            except ModelError as failed:
                error = failed
            if attempt <= server.retries:
                server.loop.call(server.pause(pause(named(server.url), attempt, None)))
        raise error

    def _chats(self) -> bool:
        if self.server.api == "completions":
            return False
        return (self.server.kind.chats and not self.known("chat")) or self["chat"].there is not False

    def _takes(self, tokens: int = 1, chat: bool | None = None, **more: Any) -> Found:
        status, found = self._ask(tokens, chat, **more)
        return Found(status == 200, "" if status == 200 else f"{status}: {told(found)}")

    def _chat(self) -> Found:
        return self._takes(chat=True)

    def _completions(self) -> Found:
        return self._takes(chat=False)

    def _continuation(self) -> Found:
        """A reply's beginning costs its own tokens where it is gone on with; where it is taken for a turn that is over,
        the turn's frame comes on top."""
        if not self._chats():
            return Found(True, "the prompt with the text")
        status, bare = self._ask()
        why = "" if status == 200 else f"{status}: {told(bare)}"
        for way in ("flags", "trailing", "prefix"):
            self.continue_by = way
            figures = []
            for text in (WORD, f"{WORD} {WORD}"):
                message, flags = self.continued(text)
                status, found = self._ask(messages=[*ASKED, message], **flags)
                if status != 200:
                    why = why or f"{status}: {told(found)}"
                    break
                figures.append(usage_of(found.get("usage")))
            else:
                base = usage_of(bare.get("usage")) if isinstance(bare, dict) else None
                if base is None or figures[0] is None or figures[1] is None:
                    known = self.server.kind.continues
                    return Found(known, f"{way}, as {self.server.kind.name} has it" if known else "it reports no usage")
                one, two = figures[0].prompt - base.prompt, figures[1].prompt - figures[0].prompt
                if one <= two + 1:
                    return Found(True, way)
                why = why or "it takes the beginning for a turn that is over"
        return Found(False, why)

    def _n(self) -> Found:
        status, found = self._ask(n=2)
        if status != 200:
            return Found(False, f"{status}: {told(found)}")
        given = len(found.get("choices") or ()) if isinstance(found, dict) else 0
        return Found(given == 2, "" if given == 2 else f"{given} of 2 choices came")

    def _logprobs(self) -> Found:
        status, found = self._ask(logprobs=True if self._chats() else 1)
        if status != 200:
            return Found(False, f"{status}: {told(found)}")
        choices = found.get("choices") if isinstance(found, dict) else None
        first = choices[0] if isinstance(choices, list) and choices else None
        there = isinstance(first, Mapping) and bool(first.get("logprobs"))
        note = "the end's too" if self.server.kind.scores_end else "not known to hold the end's: no mass"
        return Found(there, note if there else "none came")

    def _seed(self) -> Found:
        return self._takes(seed=1)

    def _tokenize(self) -> Found:
        for asked in ({"model": self.server.model, "prompt": WORD}, {"content": WORD}):
            status, found = self.server.ask("POST", "/tokenize", asked, root=True)
            if status == 200 and isinstance(found, dict) and ("count" in found or "tokens" in found):
                return Found(True)
        return Found(False)

    def _guided(self) -> Found:
        schema = {"type": "json_schema", "json_schema": {"name": "probe", "schema": JSON_SCHEMA, "strict": True}}
        return self._accepted("response_format", schema)

    def _reasoning_effort(self) -> Found:
        return self._accepted("reasoning_effort", "low") if self._chats() else Found(False)

    def _accepted(self, name: str, value: Any) -> Found:
        """A server may take a field and do nothing with it: one that takes any field at all tells nothing."""
        taken = self._takes(**{name: value})
        if taken.there and self._takes(anystep_probe=1).there:
            return Found(None, "taken, as any unknown field is")
        return taken

    def _thinking_budget(self) -> Found:
        there = self["continuation"]
        return Found(there.there, "Thinking(budget=...)" if there.there else there.note)

    def _stream(self) -> Found:
        return self._streamed()["stream"]

    def _usage(self) -> Found:
        return self._streamed()["usage"]

    def _continuous_usage(self) -> Found:
        return self._streamed()["continuous_usage"]

    def _stop_told(self) -> Found:
        return self._streamed()["stop_told"]

    def _streamed(self) -> dict[str, Found]:
        """One stream of a few tokens tells four things."""
        chat = self._chats()
        asked = {"messages": ASKED} if chat else {"prompt": WORD}
        options = {"include_usage": True, **({"continuous_usage_stats": True} if self.server.kind.continuous else {})}
        body = {"model": self.server.model, self.server.kind.cap: 3, "stream": True, "stream_options": options, **asked}
        inbox: Inbox = SimpleQueue()
        attempt = self.server.attempt(inbox, beside=True)
        told_of, said, trouble = [], False, None
        while True:
            event = inbox.get()
            if isinstance(event, Asks):
                attempt.grant("/chat/completions" if chat else "/completions", body)
            elif isinstance(event, Closed):
                trouble = event.trouble
                break
            else:
                told_of += [delta.usage for delta in event.deltas if delta.usage is not None]
                said |= any(delta.said and delta.finish for delta in event.deltas)
        self.cost += Cost(calls=1)
        if told_of:
            self.cost += self.server.prices.of(told_of[-1])
        note = str(trouble) if trouble is not None else ""
        kept = self.server.kind.keeps
        self.server.says |= said
        found = {
            "stream": Found(trouble is None and attempt.streamed, note),
            "usage": Found(bool(told_of), note),
            "continuous_usage": Found(len(told_of) > 2),
            "stop_told": Found(said or kept is not None, kept or ""),
        }
        self._found.update(found)
        return found
