"""What drafting means: guess how rows go on, as trees of tokens, before the model itself is asked.

A `Drafter` is a value with settings. For each call of `step` it begins one `Drafting`, which is asked for drafts round
by round, and told what became of them. A drafter can only change what a step costs: whether it changes what comes out
is the verifier's affair.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.language.engine.trees import Tree
from anystep.ledger import Limit

if TYPE_CHECKING:
    from torch import Tensor

    from anystep.language.accelerate.verify import Verdict
    from anystep.language.engine.decoding import Decoding
    from anystep.language.process import LanguageProcess


@dataclass(frozen=True)
class Draft:
    """`tree`: what may follow the row's last token; empty for no guess. Siblings stand in the order of their guesses.

    proposals: for nodes (-1 is the row itself) whose children were drawn at random, the probabilities (vocab,) that
    the first child was drawn from; each further sibling was drawn from the same without those before it. Children of
    other nodes were chosen, not drawn. Verifiers that are exact in law need to know which.
    chances: (nodes,) the drafter's own estimate that each node is accepted once its parent is; empty where it has none.
    kinds: (nodes,) which guesses are alike, as small numbers: acceptance is learnt kind by kind. By default only
    children are alike, and others of one rank among their siblings. Where children are drawn, a node's kind and chance
    must not depend on what was drawn for it.
    """

    tree: Tree = field(default_factory=lambda: Tree((), ()))
    proposals: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)
    chances: tuple[float, ...] = ()
    kinds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if any(len(each) not in (0, len(self.tree)) for each in (self.chances, self.kinds)):
            raise UsageError(f"Draft(tree, ..., chances, kinds) has {len(self.tree)} of each, one a node, or none.")

    def __len__(self) -> int:
        return len(self.tree)

    def sorted(self) -> Draft:
        """The draft with kinds, by default: those of its whole tree, whatever is cut from it later."""
        if self.kinds:
            return self
        children, seen, kinds = Counter(self.tree.parents), Counter[int](), []
        for parent in self.tree.parents:
            seen[parent] += 1
            kinds.append(seen[parent] if children[parent] > 1 else 0)
        return replace(self, kinds=tuple(kinds))

    def only(self, nodes: Sequence[int]) -> Draft:
        """The draft with these nodes alone, given in order; a node's parent must be among them."""
        if len(nodes) == len(self):
            return self
        new = {-1: -1} | {node: i for i, node in enumerate(nodes)}
        tokens = tuple(self.tree.tokens[node] for node in nodes)
        return Draft(
            Tree(tokens, tuple(new[self.tree.parents[node]] for node in nodes)),
            {new[node]: q for node, q in self.proposals.items() if node in new},
            tuple(self.chances[node] for node in nodes) if self.chances else (),
            tuple(self.kinds[node] for node in nodes) if self.kinds else (),
        )


@dataclass(frozen=True)
class Want:
    """How much to draft for a row: at most `nodes`, at most `depth` of them one after the other."""

    nodes: int
    depth: int


@dataclass
class Job:
    """One call of `step`. Rows are numbered as in that call.

    process: whose tokens are guessed. session: the target's rows, row r at `place[r]`; what it has been fed of a row is
    all but the last token. tokens: each row's tokens so far, prompt included; the list is kept up to date. keys: one a
    row. limit: pay it before any pass of another model. coupled: the verifier takes the very token that plain decoding
    would draw, so a drafter that makes random choices does best to draw as it does, by the inverse distribution at
    `keys.uniforms(key, position)`; otherwise its draws must use lanes of their own, from 1 on.
    """

    process: LanguageProcess
    session: Decoding
    place: Mapping[int, int]
    tokens: Sequence[tuple[int, ...]]
    starts: Sequence[int]
    keys: Keys
    limit: Limit
    coupled: bool


class Drafting:
    """One call's drafting. level: what one more level of drafting takes, in passes of the target over one position; 0
    where guesses are looked up. together: when any row of a round wants a draft, the others are asked about too, with
    nothing wanted."""

    level: float = 0.0
    together: bool = False

    def draft(self, wants: Mapping[int, Want]) -> Mapping[int, Draft]:
        """Guesses for these rows; rows that are left out have none. More than is wanted is cut, level by level last."""
        raise NotImplementedError

    def told(self, row: int, draft: Draft, verdict: Verdict, hidden: Tensor) -> None:
        """What became of a draft, possibly an empty one: which of its nodes were accepted, and the token drawn after
        them. hidden (1 + nodes, dim): the target's last hidden states at the row's last token, then at each node."""

    def close(self) -> None:
        """The call is over; the rows' tokens are final."""


class Drafter(ABC):
    """Guesses how rows go on.

    shared: whether drafts depend on more than the row's own tokens and key, such as on what other rows said before. It
    never changes an answer under a verifier that follows plain decoding, but then costs depend on company and order.
    """

    name: str = "drafter"
    shared: bool = False

    @abstractmethod
    def begin(self, job: Job) -> Drafting:
        """Ready for one call of `step`. Raises UsageError where it cannot draft for this process."""

    def forget(self) -> None:
        """Drop what was learnt or cached, so that the next run pays for all it uses."""
