"""What has a run been told, and how does it go on after a crash? Journals on disk, and the codec that writes them."""

from anystep.journal.codec import decode, encode

__all__ = ["decode", "encode"]
