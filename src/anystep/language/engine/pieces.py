"""A SentencePiece vocabulary of pairs, as GGUF files carry it, in the terms of the `tokenizers` library.

SentencePiece joins, again and again, the two neighbours whose union has the best score; byte-pair encoding joins those
whose merge comes first in a list. So the list is every way to make a piece of two, the best-scored pieces first.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, decoders, models, normalizers
from tokenizers import Tokenizer as Rust

from anystep.errors import ModelError

SPACE = "\u2581"  # how a space is written inside pieces
NORMAL, UNKNOWN, CONTROL, DEFINED = 1, 2, 3, 4  # GGUF's kinds of tokens; 6 is a single byte
KINDS = (NORMAL, DEFINED)  # those that text is made of


def from_scores(tokens: Sequence[str], scores: Sequence[float], kinds: Sequence[int], prefix: bool) -> Rust:
    """The tokenizer of these pieces; `prefix` says whether a text is read as if a space stood before it.

    Pieces that a user defined come before all others, the longest first. What no piece covers is written in bytes.
    Raises ModelError for lists of different lengths, or a token given twice.
    """
    if not len(tokens) == len(scores) == len(kinds):
        raise ModelError(f"The file has {len(tokens)} tokens, {len(scores)} scores and {len(kinds)} kinds of token.")
    written = [t.replace(" ", SPACE) if kind == DEFINED else t for t, kind in zip(tokens, kinds, strict=True)]
    vocab = {token: i for i, token in enumerate(written)}
    if len(vocab) != len(written):
        raise ModelError(f"The file's {len(written)} tokens are only {len(vocab)} different ones.")
    ranks = {t: 0.0 if k == DEFINED else s for t, s, k in zip(written, scores, kinds, strict=True) if k in KINDS}
    unknown = next((token for token, kind in zip(written, kinds, strict=True) if kind == UNKNOWN), None)
    if unknown is None and "<unk>" in vocab:
        unknown = "<unk>"
    model = models.BPE(vocab=vocab, merges=merges(vocab, ranks), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    rust = Rust(model)
    spaces = normalizers.Replace(" ", SPACE)
    rust.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if prefix else spaces
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    rust.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    add_words(rust, written, kinds)
    return rust


def add_words(rust: Rust, tokens: Sequence[str], kinds: Sequence[int]) -> None:
    """Makes special tokens and those that a user defined whole words, read before anything else."""
    for kind, special in ((CONTROL, True), (DEFINED, False)):
        words = [token for token, its in zip(tokens, kinds, strict=True) if its == kind]
        rust.add_tokens([AddedToken(word, special=special, normalized=False) for word in words])


def merges(vocab: dict[str, int], scores: dict[str, float]) -> list[tuple[str, str]]:
    """Every pair of pieces whose union is a piece, the best union first; of equals the longest first part, then the
    longest second, leads."""
    found = []
    for piece, score in scores.items():
        splits = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
        found += [(-score, -len(a), -len(b), a, b) for a, b in splits if a in vocab and b in vocab]
    return [(left, right) for *_, left, right in sorted(found, key=lambda entry: entry[:3])]
