"""Turns by a local model, which asks for tools in text: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from anystep.errors import Unsupported, UsageError
from anystep.language.engine.engine import Engine
from anystep.language.engine.tokenizer import begun
from anystep.language.process import LanguageProcess
from anystep.language.states import Sequences
from anystep.language.tools.dialogues import Call, Message, text_of
from anystep.language.tools.tool import Tool
from anystep.language.tools.turns import Turn, Turns

BLOCK = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
RESULT, END = "<tool_response>", "</tool_response>"
TOLD = """You can call functions before you answer. These are the functions, one a line:
{tools}

To call one, write exactly this, and nothing after it:
<tool_call>
{{"name": "the function's name", "arguments": {{"an argument's name": "its value"}}}}
</tool_call>
What it returns is then given to you between <tool_response> and </tool_response>. When you know the answer, say it in
plain words, without a call."""


class TextTurns(Turns):
    """Each turn is a completion of the conversation, written out by the model's chat template.

    Tools are told by the template where it knows of them (as Qwen's and Hermes' do), else in the system message;
    results likewise. Calls are read strictly, and other text around them is left alone. A turn ends where the model
    ends it, or where it begins to write a result itself; one of max_tokens fails. temperature, top_p: as of
    LanguageProcess.

    A conversation goes on from the very tokens the model wrote, so that what is in the cache is found there, unless
    the template writes past turns differently. Results cannot write the template's special tokens: their names are
    broken up.
    """

    def __init__(
        self,
        engine: Engine,
        tools: Sequence[Tool],
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int = 512,
        name: str | None = None,
    ) -> None:
        if not isinstance(engine, Engine):
            raise UsageError(
                f"ToolProcess(model={engine!r:.60}): give a loaded engine: "
                "ToolProcess(language.load('smollm2-135m'), question, tools=[add])."
            )
        template = engine.tokenizer.template
        if template is None:
            raise Unsupported(f"{engine.name} has no chat template, so it cannot be told of tools; use a chat model.")
        self.engine, self.told = engine, [tool.described() for tool in tools]
        self.native = re.search(r"{%-?[^%]*\btools\b", template) is not None
        self.process = LanguageProcess(
            engine,
            " ",  # each conversation brings its own prompt
            unit="completion",
            end=(RESULT,),
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            at_cap="failed",
            chat=False,
            name=name,
        )

    def begin(self, messages: Sequence[Message], before: Sequences | None) -> Sequences:
        tokenizer, context = self.engine.tokenizer, self.engine.config.context
        text = self._written(messages)
        tokens = None if before is None else self._gone_on(messages, text, before)
        tokens = begun(tokenizer, text) if tokens is None else tokens
        if len(tokens) >= context:
            raise UsageError(
                f"The conversation has {len(tokens):,} tokens; {self.engine.name} reads {context:,} with its answer."
            )
        return Sequences((tokens,), (len(tokens),), tokenizer)

    def _gone_on(self, messages: Sequence[Message], text: str, before: Sequences) -> tuple[int, ...] | None:
        """The last turn's tokens and those of what follows it in `text`; None where the template wrote it anew."""
        tokenizer, out = self.engine.tokenizer, before.outputs()[0]
        last = max((i for i, m in enumerate(messages) if m.get("role") == "assistant"), default=None)
        if last is None or not out:
            return None
        said = before.texts()[0]
        head = self._written(messages[:last]) + said
        if said != text_of(messages[last]) or not text.startswith(head):
            return None
        rest = text[len(head) :]
        if out[-1] in tokenizer.ends:
            end = tokenizer.written(out[-1])
            if not rest.startswith(end):
                return None
            rest = rest[len(end) :]
        return before.tokens[0] + tuple(tokenizer.encode(rest))

    def _written(self, messages: Sequence[Message]) -> str:
        """The conversation as the text the model reads."""
        chat = self.engine.tokenizer.chat
        if self.native:
            return chat([{**m, "content": text_of(m)} for m in messages], self.told)
        system = TOLD.format(tools="\n".join(json.dumps(tool["function"]) for tool in self.told))
        if messages and messages[0].get("role") == "system":
            system, messages = f"{text_of(messages[0])}\n\n{system}", messages[1:]
        return chat([{"role": "system", "content": system}, *_plain(messages)])

    def result(self, call: Call, text: str) -> Message:
        for name in (*self.engine.tokenizer.special, RESULT, END):
            text = text.replace(name, f"{name[0]} {name[1:]}")
        return super().result(call, text)

    def read(self, states: Sequences) -> tuple[Turn, ...]:
        return tuple(read_turn(text.removesuffix(RESULT)) for text in self.process.texts(states))


def read_turn(text: str) -> Turn:
    """The turn that a model wrote as this text."""
    thought, _, said = text.rpartition("</think>")  # calls that are only thought of are not made
    calls = [call for block in BLOCK.findall(said) for call in _calls(block)]
    numbered = tuple(Call(c.name, c.arguments, f"call-{i}", c.broken) for i, c in enumerate(calls, 1))
    return Turn({"role": "assistant", "content": text}, numbered)


def _calls(block: str) -> Iterator[Call]:
    """The calls in one block: an object, or a list of them; a block that is neither is one broken call."""
    try:
        found = json.loads(block)
    except (ValueError, RecursionError) as error:
        yield Call("", broken=f"what stands in <tool_call> is no JSON ({' '.join(str(error).split())})")
        return
    for each in found if isinstance(found, list) else [found]:
        name = each.get("name") if isinstance(each, dict) else None
        arguments = each.get("arguments", {}) if isinstance(each, dict) else None
        if isinstance(name, str) and isinstance(arguments, (dict, str)):
            yield Call(name, arguments if isinstance(arguments, str) else json.dumps(arguments))
        else:
            yield Call("", broken='a call looks like {"name": "...", "arguments": {...}}')


def _plain(messages: Sequence[Message]) -> list[Message]:
    """Messages for a template that knows of no tools: calls as the text of their turn, results as the user's words."""
    found: list[Message] = []
    results = False
    for message in messages:
        role, text = str(message["role"]), text_of(message)
        if role == "tool":
            text = f"{RESULT}\n{text}\n{END}"
            if results:
                text = f"{found.pop()['content']}\n{text}"
            found.append({"role": "user", "content": text})
        else:
            found.append({"role": role, "content": "\n".join(filter(None, [text, *map(_block, _asked(message))]))})
        results = role == "tool"
    return found


def _asked(message: Message) -> list[Mapping[str, Any]]:
    """The calls of a message in the servers' form, as a prompt may hold them."""
    return [call.get("function", {}) for call in message.get("tool_calls") or ()]


def _block(asked: Mapping[str, Any]) -> str:
    return (
        f'<tool_call>\n{{"name": {json.dumps(asked.get("name"))}, "arguments": {asked.get("arguments")}}}\n</tool_call>'
    )
