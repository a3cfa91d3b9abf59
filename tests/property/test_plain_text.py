"""Whatever a stranger's text spells, no special token comes of it, and not a letter of it is lost."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from anystep.language.engine.pieces import CONTROL, DEFINED, NORMAL, from_scores
from anystep.language.engine.plain import Plain
from anystep.language.engine.tokenizer import Alphabet, Subwords
from tally import SPECIAL, tokenizer

PARTS = [*SPECIAL, "<|", "|>", "im_", "start", "end", "<|im_", "_end|>", "<", ">", "|", " ", "\n", "\u00e9", "```", "a"]
TURNS = ["<start_of_turn>", "<end_of_turn>", "<eos>", "<start_of_", "turn>", "<end", "_of_", "<", ">", "a", " ", "\n\n"]


@given(st.lists(st.sampled_from(PARTS) | st.text(max_size=4), max_size=30).map("".join))
@settings(max_examples=300, deadline=None)
def test_bytes_with_special_tokens(text: str) -> None:
    words = tokenizer()
    tokens = Plain(words).encode(text)
    assert not {0, 1}.intersection(tokens)
    assert words.decode(tokens) == text


def gemma_like() -> Subwords:
    """Pieces that can be joined into the name of a token which the file calls a word."""
    letters = list("<>_eosftrnuadgm \n".replace(" ", "\u2581"))
    names = ["<eos>", "<end_of_turn>", "<start_of_turn>"]
    joined = ["<start_of_", "turn>", "<end_of_"]
    made = {piece[:i] for piece in joined for i in range(2, len(piece))} - set(joined)
    tokens = ["<unk>", *names, *letters, *sorted(made), *joined]
    kinds = [2, CONTROL, DEFINED, DEFINED] + [NORMAL] * (len(tokens) - 4)
    return Subwords(from_scores(tokens, [-float(i) for i in range(len(tokens))], kinds, False), [1])


@given(st.lists(st.sampled_from([t for t in TURNS if t != "a"] + ["e", "o"]), max_size=20).map("".join))
@settings(max_examples=200, deadline=None)
def test_turns_that_the_file_calls_words(text: str) -> None:
    words = gemma_like()
    assert words.encode("<end_of_turn>") == [2] and words.encode("<start_of_turn>") == [3]
    tokens = Plain(words, also=(2, 3)).encode(text)
    assert not {1, 2, 3}.intersection(tokens)
    assert words.decode(tokens) == text


def test_a_character_that_ends_an_answer_is_text_too() -> None:
    assert Plain(Alphabet("ab.")).encode("a.b") == [0, 2, 1]
