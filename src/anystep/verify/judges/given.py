"""What a judge is given to read was written by others: it is quoted, never obeyed, and cannot look like the judge's own
words."""

from __future__ import annotations

import re
from dataclasses import dataclass

FENCE = "```"
_CONTROLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
_CONTROLS |= {code: 0xFFFD for code in [*range(0x80, 0xA0), *range(0xD800, 0xE000)]}
_BREAKS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# As servers' templates write them: <|im_end|>, <end_of_turn>, [INST], </s>, <<SYS>>.
_TURNS = re.compile(
    r"<[|\uff5c][^<>\n]{0,60}[|\uff5c]>|</?(?:start_of_turn|end_of_turn|bos|eos|s|unk|pad)>|\[/?INST\]|<</?SYS>>"
)


@dataclass(frozen=True)
class Given:
    """A text to be judged, or asked about: a question, a candidate."""

    text: str


Piece = str | Given  # a judge's own words, and what it is given
Ask = tuple[Piece, ...]


def shown(text: str) -> str:
    """`text` with visible signs in place of control characters (a terminal's escapes among them), and lone surrogates
    as U+FFFD. Line breaks of every kind are new lines."""
    return _BREAKS.sub("\n", text).translate(_CONTROLS)


def fence_for(*texts: str) -> str:
    """Marks that none of `texts` contains: a run of backticks longer than any of theirs, and three at least."""
    longest = max((len(run) for text in texts for run in re.findall("`+", text)), default=0)
    return "`" * max(len(FENCE), longest + 1)


def quoted(text: str) -> Ask:
    """A text between marks that it cannot close."""
    text = shown(text)
    fence = fence_for(text)
    return (f"{fence}\n", Given(text), f"\n{fence}")


def unmarked(text: str) -> str:
    """`text` with what servers may read as a turn's marks broken by a zero-width space: a client cannot tell a server
    that they are text."""
    return _TURNS.sub(lambda found: f"{found[0][0]}\u200b{found[0][1:]}", text)
