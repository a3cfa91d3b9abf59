"""What has a run been told, and how does it go on after a crash? Journals on disk, and the codec that writes them.

`open(path)` gives a journal for `Run(..., journal=...)`; `resume(path, process, method)` a run that goes on where one
ends; `read(path)` what a journal holds, without the model.
"""

from anystep.journal.codec import decode, encode, number
from anystep.journal.file import FileJournal, existing, kept, open, resume
from anystep.journal.head import costs_of
from anystep.journal.head import end as summary
from anystep.journal.lines import locked
from anystep.journal.nodes import Node, best, family
from anystep.journal.story import Round, Story, read

__all__ = [
    "FileJournal",
    "Node",
    "Round",
    "Story",
    "best",
    "costs_of",
    "decode",
    "encode",
    "existing",
    "family",
    "kept",
    "locked",
    "number",
    "open",
    "read",
    "resume",
    "summary",
]
