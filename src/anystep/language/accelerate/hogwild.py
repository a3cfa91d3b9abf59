"""Hogwild inference: workers of one model write in parallel, each reading what the others are just writing.

All workers share one cache of keys. In each round every worker writes one token, all of them in one pass, and sees the
common history, the others' paragraphs as far as they have got, and its own last. A finished paragraph joins the
history, and no token is ever encoded twice. Source: Rodionov et al., "Hogwild! Inference: Parallel LLM Generation via
Concurrent Attention" (2025), arXiv 2504.06261.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from anystep import keys as lineage
from anystep.errors import Unsupported, UsageError
from anystep.keys import Keys, named
from anystep.language.accelerate.blocks import Blocks
from anystep.language.accelerate.transcripts import ENDED, Board, Round, Transcripts
from anystep.language.engine.engine import Engine
from anystep.language.engine.sampling import draw
from anystep.language.prefill import opened
from anystep.language.process import LanguageProcess, Prompt
from anystep.ledger import FREE, Cost, Ledger, Limit
from anystep.process import Process, Status, Stepped, Until

NAMES = ("Alice", "Bob", "Carol", "Dave", "Erin", "Frank", "Grace", "Heidi")


class HogwildEngine:
    """Workers over the cached keys of a prompt: feed a token to each in one pass, read each one's next-token logits.

    The prompt must have been paid for; what it lacks in the engine's cache is computed. With `shared=False` workers
    are blind to each other: they then write what they would write alone.
    """

    def __init__(self, engine: Engine, prompt: Sequence[int], workers: int = 2, shared: bool = True) -> None:
        if workers < 1:
            raise UsageError(f"HogwildEngine(engine, prompt, workers={workers!r}): one worker at least.")
        if not hasattr(engine.model, "blocks"):
            raise Unsupported(f"{engine.name} rotates its keys out of sight; Hogwild needs a model that load() reads.")
        self.engine = engine
        with engine.lock:
            session = engine.open(engine.plan([prompt]))
            common = torch.cat([span.keys for span in session.paths[0]], 3)
            self.hidden = session.hidden.expand(workers, -1).clone()
            session.close(keep=False)
        engine.counters.copied_prompt_bytes += common.nbytes
        self.blocks = Blocks(engine.config, common, workers, shared)

    def copy(self) -> HogwildEngine:
        """The same workers, to be continued apart."""
        other = object.__new__(HogwildEngine)
        other.engine, other.hidden, other.blocks = self.engine, self.hidden.clone(), self.blocks.copy()
        return other

    def feed(self, tokens: Mapping[int, int]) -> None:
        """One pass: each worker named writes its token behind its own block, where all see it from this pass on."""
        feed_all([self], [tokens])

    @torch.inference_mode()
    def logits(self, workers: Sequence[int]) -> Tensor:
        """(len(workers), vocab): what each would write next."""
        return self.engine.model.logits(self.hidden[list(workers)])

    def price(self, workers: Sequence[int]) -> Cost:
        """What feeding one token to each of `workers` costs, without logits and apart from the call itself."""
        views = [self.blocks.seen(w) for w in workers]
        own = len(workers) if self.blocks.shared else 1  # what is written in this pass is seen in it
        attended = sum(views) + own * len(workers)
        return Cost(evaluations=len(workers), attended=attended, flops=self.engine.flops(len(workers), attended, 0))


@torch.inference_mode()
def feed_all(crews: Sequence[HogwildEngine], tokens: Sequence[Mapping[int, int]]) -> None:
    """`feed` for several crews of one engine in one pass; each sees its own blocks alone."""
    named = [sorted(own) for own in tokens]
    attends = [crew.blocks.write(workers) for crew, workers in zip(crews, named, strict=True)]
    sizes = [len(workers) for workers in named]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = zip(attends, q.split(sizes), k.split(sizes), v.split(sizes), strict=True)
        return torch.cat([one(layer, *part) for one, *part in parts])

    fed = torch.tensor([[own[worker]] for own, workers in zip(tokens, named, strict=True) for worker in workers])
    hidden = crews[0].engine.run(fed, torch.zeros_like(fed), attend if len(crews) > 1 else attends[0])[:, 0]
    for crew, workers, states in zip(crews, named, hidden.split(sizes), strict=True):
        crew.hidden[workers] = states


class Hogwild(Process):
    """`workers` instances of one model that continue a prompt together; a state is their joint transcript.

    **Preserves** nothing of one worker's distribution: each conditions on what the others write, as they write it. One
    worker without a heading is ordinary decoding, token for token. Each token is drawn exactly from its worker's next-
    token distribution at `temperature` and `top_p`, at the state's key, its round and its worker. The workers must be
    able to make use of each other: models that follow instructions, told in the prompt who writes with whom.

    names: the workers' own, one each; by default the first of `NAMES`. heading: what a paragraph begins with, "{name}"
    in it being the worker's; read, never drawn; by default "{name}: ", and nothing for one worker. stop: the text that
    ends a paragraph, which then joins the history at its end. max_tokens: the most tokens that one worker writes,
    headings included; it then is done. shared: with False the workers are blind to each other. A step goes on until a
    paragraph joins the history, or to the end where none does. chat, extract and the rest are as in `LanguageProcess`.

    Caches of recent states are kept, up to the engine's own bound in bytes; what was dropped is fed again from its
    rounds, and charged as prompt.
    """

    logp = "mass"

    def __init__(
        self,
        engine: Engine,
        prompt: Prompt,
        *,
        workers: int = 2,
        names: Sequence[str] | None = None,
        heading: str | None = None,
        stop: str = "\n\n",
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int = 256,
        shared: bool = True,
        extract: Callable[[str], Hashable | None] | None = None,
        chat: bool | None = None,
        name: str | None = None,
    ) -> None:
        if workers < 1 or (names is None and workers > len(NAMES)):
            raise UsageError(f"Hogwild(engine, prompt, workers={workers!r}): 1 to {len(NAMES)}, or give their names.")
        own = tuple(NAMES[:workers] if names is None else names)
        if len(own) != workers:
            raise UsageError(f"Hogwild(workers={workers}, names={own!r}): a name for each worker, such as {NAMES[:2]}.")
        plain = LanguageProcess(
            engine,
            prompt,
            unit="completion",
            stop=stop,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            chat=chat,
        )
        self.engine, self.prompt, self.stop, self.shared = engine, plain.prompt, stop, shared
        self.temperature, self.top_p, self.extract = temperature, top_p, extract
        heading = ("" if workers == 1 else "{name}: ") if heading is None else heading
        self.heads = tuple(tuple(engine.tokenizer.encode(heading.replace("{name}", who))) for who in own)
        room = (engine.config.context - len(self.prompt)) // workers
        self.longest = self.horizon = min(max_tokens, room)
        if max((len(head) for head in self.heads), default=0) >= self.longest:
            raise UsageError(f"Hogwild(max_tokens={max_tokens}): no room for more than the headings {heading!r}.")
        self.name, self.branches = name or f"hogwild {engine.name}", temperature > 0
        self.kept: OrderedDict[tuple[Round, ...], HogwildEngine] = OrderedDict()

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        n = len(keys)
        return Stepped(Transcripts(((),) * n, self), np.zeros(n, np.int8), np.zeros(n), np.zeros(n), limit.used)

    def step(self, states: Transcripts, keys: Keys, limit: Limit, until: Until) -> Stepped:
        with self.engine.lock:
            rows = [Row(self, rounds, int(keys[i]), i) for i, rounds in enumerate(states.rounds)]
            whole = until != "step"
            wanted = until if isinstance(until, int) else len(rows)
            while going := [row for row in rows if row.goes_on(whole)]:
                if sum(row.done for row in rows) >= wanted:
                    break
                self._advance(going, limit)
            for row in rows:
                self._keep(row)
        status = np.array([Status.DONE if row.done else Status.LIVE for row in rows], np.int8)
        cut = np.array([row.goes_on(whole) or row.refused for row in rows], bool)
        after = Transcripts(tuple(tuple(row.rounds) for row in rows), self)
        logp = np.array([row.logp for row in rows], np.float64)
        return Stepped(after, status, logp, np.zeros(len(rows)), limit.used, cut)

    def _advance(self, rows: Sequence[Row], limit: Limit) -> None:
        """One pass for all of `rows`: each is fed the next round that its cache lacks, paid for before, and writes a
        new one where that was the last."""
        found = [row for row in rows if row.found(limit)]
        ready = [row for row in found if not row.lacks]
        behind = [row for row in found if row.lacks]
        ready, behind = self._paying(ready, limit, FREE), self._paying(behind, limit, Cost(calls=1))
        if behind:
            feed_all([row.crew for row in behind], [row.next_fed() for row in behind])
            for row in behind:
                row.was_fed()
        for row in (*ready, *behind):
            if not row.lacks:
                row.write(limit)

    @staticmethod
    def _paying(rows: Sequence[Row], limit: Limit, once: Cost) -> list[Row]:
        """Those of `rows` that could pay for their next piece of work; the others are refused."""
        granted = limit.pay([row.row for row in rows], [row.due() for row in rows], once=once)
        for row, yes in zip(rows, granted.tolist(), strict=True):
            row.refused = not yes
        return [row for row in rows if not row.refused]

    def _keep(self, row: Row) -> None:
        """Keeps a row's cache under the rounds fed, dropping the longest unused ones over the bound."""
        if row.fed is None or row.done:
            return
        self.kept[tuple(row.rounds[: row.fed])] = row.crew
        self.kept.move_to_end(tuple(row.rounds[: row.fed]))
        while len(self.kept) > 1 and sum(c.blocks.bytes for c in self.kept.values()) > self.engine.cache.limit:
            self.kept.popitem(last=False)

    def texts(self, states: Transcripts) -> tuple[str, ...]:
        return states.texts()

    def answers(self, states: Transcripts) -> tuple[Hashable, ...]:
        read = self.extract or str.strip
        return tuple(read(text) for text in states.texts())

    def forget(self) -> None:
        with self.engine.lock:
            self.kept.clear()
            self.engine.cache.trim(0)

    def warm(self, states: Transcripts) -> None:
        with self.engine.lock:
            for rounds in filter(None, states.rounds):
                row = Row(self, rounds[:-1], 0, 0)
                row.found(Limit(Ledger(), self.name))
                while row.lacks:
                    row.crew.feed(row.next_fed())
                    row.was_fed()
                self._keep(row)

    def settings(self) -> str:
        reads = getattr(self.extract, "__qualname__", None)
        rules = (self.heads, self.stop, self.temperature, self.top_p, self.longest, self.shared, reads)
        return f"prompt {named(str(self.prompt)):016x}, {rules}"

    def dump(self, states: Transcripts) -> bytes:
        return json.dumps(states.rounds).encode()

    def load(self, data: bytes) -> Transcripts:
        rounds = tuple(tuple(map(tuple, row)) for row in json.loads(data))
        for tokens in (one for row in rounds for one in row):
            good = all(type(t) is int and ENDED <= t < self.engine.config.vocab for t in tokens)
            if len(tokens) != len(self.heads) or not good:
                raise ValueError(f"a round has {len(self.heads)} tokens of 0..{self.engine.config.vocab - 1}, or -1")
        return Transcripts(rounds, self)


class Row:
    """One state on its way through a step: its rounds, `fed` of which its crew's cache has."""

    crew: HogwildEngine

    def __init__(self, process: Hogwild, rounds: Sequence[Round], key: int, row: int) -> None:
        self.process, self.rounds, self.key, self.row = process, list(rounds), key, row
        self.board = Board.of(process, rounds)
        self.fed: int | None = None
        self.logp, self.refused, self.stepped = 0.0, False, False

    @property
    def done(self) -> bool:
        return not self.board.writing or len(self.rounds) >= self.process.longest

    def goes_on(self, whole: bool) -> bool:
        return not self.refused and not self.done and (whole or not self.stepped)

    @property
    def lacks(self) -> int:
        """How many rounds the cache lacks."""
        return len(self.rounds) - (self.fed or 0)

    def found(self, limit: Limit) -> bool:
        """Takes up the kept cache that has the most of these rounds, if need be one of the prompt, paid for; False
        where that was refused."""
        if self.fed is not None:
            return True
        process, lengths = self.process, range(len(self.rounds), -1, -1)
        self.cached = 0  # positions that were computed before, to be shown as such
        known = next((n for n in lengths if tuple(self.rounds[:n]) in process.kept), None)
        if known is None:
            _, session = opened(process.engine, [process.prompt], limit, rows=np.array([self.row]))
            self.refused = session is None
            if session is None:
                return False
            session.close(keep=False)
            fresh = HogwildEngine(process.engine, process.prompt, len(process.heads), process.shared)
            process.kept[()], known = fresh, 0
        else:
            self.cached = len(process.prompt) + sum(t != ENDED for tokens in self.rounds[:known] for t in tokens)
        self.crew, self.fed = process.kept[tuple(self.rounds[:known])].copy(), known
        self.behind = Board.of(process, self.rounds[:known])  # the board as the cache knows it
        return True

    def due(self) -> Cost:
        """What feeding the next round costs that the cache lacks, and choosing a new one where that is the last; what
        was cached is shown with the first payment."""
        cost, engine = Cost(cached=self.cached), self.process.engine
        if self.lacks:
            fed = self.next_fed()
            cost += self.crew.price(sorted(fed)) + Cost(prompt=len(fed) if self.lacks > 1 else 0)
        if self.lacks <= 1:
            heads = sum(self.board.forced(worker) is not None for worker in self.board.writing)
            drawn = len(self.board.writing) - heads
            cost += Cost(prompt=heads, generated=drawn, flops=engine.flops(0, 0, heads=drawn))
        self.cached = 0
        return cost

    def next_fed(self) -> dict[int, int]:
        return {worker: t for worker, t in enumerate(self.rounds[self.fed or 0]) if t != ENDED}

    def was_fed(self) -> None:
        """The round was fed: paragraphs that it finishes join the history."""
        assert self.fed is not None
        for worker in self.behind.write(self.rounds[self.fed]):
            self.crew.blocks.join(worker)
        self.fed += 1

    def write(self, limit: Limit) -> None:
        """The next round: headings as they are, the rest drawn from each worker's own distribution."""
        process, writing = self.process, self.board.writing
        heads = {worker: self.board.forced(worker) for worker in writing}
        drawn = [worker for worker in writing if heads[worker] is None]
        tokens = [heads.get(worker) for worker in range(len(process.heads))]
        if drawn:
            keys = np.full(len(drawn), self.key, np.uint64)
            at = np.full(len(drawn), len(process.prompt) + len(self.rounds), np.uint64)
            u = lineage.uniforms(keys, at, np.array(drawn, np.uint64))
            chosen, logp = draw(self.crew.logits(drawn), u, process.temperature, process.top_p)
            self.logp += float(logp.sum())
            for worker, token in zip(drawn, chosen.tolist(), strict=True):
                tokens[worker] = token
        self.rounds.append(tuple(ENDED if token is None else token for token in tokens))
        finished = self.board.write(self.rounds[-1])
        self.stepped |= bool(finished)
        for paragraph in self.board.finished[len(self.board.finished) - len(finished) :]:
            limit.show(self.key, process.engine.tokenizer.decode(paragraph), self.row)
