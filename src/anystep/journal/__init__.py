"""What has a run been told, and how does it go on after a crash? Journals on disk, and the codec that writes them.

`open(path)` gives a journal for `Run(..., journal=...)`; `resume(path, process, method)` a run that goes on where one
ends; `read(path)` what a journal holds, without the model.
"""

from anystep.journal.codec import decode, encode
from anystep.journal.file import FileJournal, open, resume
from anystep.journal.story import Round, Story, read

__all__ = ["FileJournal", "Round", "Story", "decode", "encode", "open", "read", "resume"]
