"""Notes on candidate chains: worked by hand, and against what the checker and the construction know."""

from __future__ import annotations

from random import Random

import pytest

from anystep.language.train.spare import SpareRecipe, candidate, example, forced, referenced, reordered
from anystep.tasks.chains import FAMILIES, Verdict, family_of
from anystep.tasks.chains.family import split
from anystep.tasks.chains.merged import expanded, judge, lines, merge
from anystep.tasks.chains.notes import Note, align, asked, note, read, write
from anystep.tasks.chains.outcome import final, outcome

RECIPE = SpareRecipe()


def made(n: int, each: int = 3, seed: int = 0) -> list[tuple[str, str, str]]:
    rng = Random(seed)
    some = [p for p, _ in zip(referenced("train", seed, RECIPE), range(n), strict=False)]
    return [
        (p.prompt, p.chain, c) for p in some for _ in range(each) if len(c := candidate(rng, p.prompt, p.chain)) > 1
    ]


@pytest.mark.parametrize(
    ("prompt", "reference", "chain", "text"),
    [
        ("A48-2-9?", "48-2=46\n46-9=37.", "48-2=46\n46-9=36.", "0:48-2=46/46aV\n1:46-9=37/36b!f."),
        ("A48-2-9?", "48-2=46\n46-9=37.", "48-2-9=37.", "0:48-2=46-9=37/37abV."),
        ("A48-2-9?", "48-2=46\n46-9=37.", "48-9=39\n39-2=37.", "0:48-9=39/39b!i\n1:39-2=37/37a!a."),
        ("A48-2-9?", "48-2=46\n46-9=37.", "48-2=46.", "0:48-2=46/46a!e."),
        ("L927>rs?", "r729\ns279.", "rs279.", "0:927r729s279/279abV."),
        ("L927>rs?", "r729\ns279.", "r729\ns297.", "0:927r729/729aV\n1:729s279/297b!i."),
        ("C1 9 4>37?", "9*4=36\n36+1=37.", "4*9=36\n36+1=37.", "0:4*9=36/36<1+37-35*36>37aV\n1:36+1=37/37<>37bV."),
        ("C1 9 4>37?", "9*4=36\n36+1=37.", "9-4=5\n5-1=4.", "0:9-4=5/5<1+6-4*5>37!d\n1:5-1=4/4!a."),
        ("C1 9 4>37?", "9*4=36\n36+1=37.", "9*4+1=37.", "0:9*4=36+1=37/37<>37abV."),
        ("C1 9 4>37?", "9*4=36\n36+1=37.", "9*4=36\n36+2=37.", "0:9*4=36/36<1+37-35*36>37aV\n1:36+2=38/37!f."),
        ("C2 3 4>9?", "2+3=5\n5+4=9.", "2+4=6\n6+3=9.", "0:2+4=6/6<3+9-3*18>9bV\n1:6+3=9/9<>9aV."),
        ("A48-2-9?", "48-2=46\n46-9=37.", "4 8\n46-9=37.", "_:!f\n_:46-9=37/37b!a."),
    ],
)
def test_notes_worked_by_hand(prompt: str, reference: str, chain: str, text: str) -> None:
    notes = note(prompt, reference, chain)
    assert write(notes) == text
    assert read(text, len(notes)) == notes


def test_what_is_written_is_read_and_verdicts_are_the_checkers() -> None:
    seen = set()
    for prompt, reference, chain in made(250):
        notes = note(prompt, reference, chain)
        assert read(write(notes), len(notes)) == notes
        assert [n.verdict for n in notes] == list(judge(prompt, chain)) and len(notes) == len(split(chain))
        seen |= {n.verdict for n in notes}
        plain, counts = expanded(prompt, chain)
        if all(count == 1 for count in counts):
            assert plain == chain and judge(prompt, chain) == family_of(prompt).judge(prompt, chain)
    assert seen == set(Verdict)


def test_merging_right_lines_keeps_them_right_and_aligns_with_both() -> None:
    merged = 0
    for prompt, reference, _ in made(80, each=1):
        count = len(split(reference))
        assert align(prompt, reference, reference) == [(i,) for i in range(count)]
        for at in range(count):
            chain = merge(prompt, reference, at)
            if chain is None:
                assert at == count - 1
                continue
            merged += 1
            assert set(judge(prompt, chain)) == {Verdict.RIGHT} and len(split(chain)) == count - 1
            assert align(prompt, reference, chain)[at] == (at, at + 1)
            assert expanded(prompt, chain)[0] == reference and outcome(prompt, chain)
    assert merged > 100


def test_what_does_not_go_on_is_not_merged() -> None:
    assert merge("A48-2-9?", "48-2=46\n47-9=38.", 0) is None  # another value
    assert merge("A48-2-9?", "48-2=45\n45-9=36.", 0) is None  # would hide the error
    assert merge("A48-2-9?", "48-2=46\n46-9=37.", 1) is None and merge("Pq>d:qg,gd?", "qg\ngd.", 0) is None
    assert judge("A48-2-9?", "48-2-9=38.") == (Verdict.FALSE,)
    assert judge("A90*9-9?", "90*9-9=0.")[0] is Verdict.FALSE and lines("A9-2?", "08-2=6.")[0].values == (None,)


def test_a_reordered_countdown_is_legal_to_its_end_and_uses_the_same_operations() -> None:
    rng, moved = Random(3), 0
    recipe = SpareRecipe(mix={"C": 1.0})
    for problem, _ in zip(referenced("train", 3, recipe), range(60), strict=False):
        chain = reordered(rng, problem.prompt, problem.chain)
        if chain == problem.chain:
            continue
        moved += 1
        verdicts = judge(problem.prompt, chain)
        assert Verdict.FALSE not in verdicts and Verdict.ILLEGAL not in verdicts
        aligned = align(problem.prompt, problem.chain, chain)
        assert sorted(i for row in aligned for i in row) == list(range(len(split(chain)))), (problem, chain)
    assert moved > 20


@pytest.mark.parametrize(
    ("prompt", "chain", "end", "right"),
    [
        ("A48-2-9?", "48-2=40\n40-9=37.", "37", True),
        ("A48-2-9?", "48-2=46\n46-9=36.", "36", False),
        ("A48-2-9?", "48-2=46\n", None, False),
        ("C1 9 4>37?", "9+9=37.", "37", True),
        ("L927>rs?", "rs279.", "279", True),
        ("Pq>d:qg,gd,qi?", "qi\nxd.", "d", True),
        ("A48-2-9?", "?.", None, False),
    ],
)
def test_an_end_is_checked_alone(prompt: str, chain: str, end: str | None, right: bool) -> None:
    assert final(prompt, chain) == end and outcome(prompt, chain) is right


def test_a_forced_end_is_right_however_it_came_there() -> None:
    for prompt, reference, chain in made(60):
        if final(prompt, chain) is not None:
            assert outcome(prompt, forced(prompt, chain, reference))


def test_unreadable_notes_are_nothing() -> None:
    good = "0:48-2=46aV"
    assert read("", 2) == [None, None] and read("0:48-2=46a.", 1) == [None] and read(f"{good}\n{good[:-1]}.", 1)[0]
    one, two = read(f"{good}\nnonsense.{good}", 2)
    assert one == Note(0, "48", ("-2",), ("46",), (0,), Verdict.RIGHT) and two is None
    assert read("V\n!d.", 2) == [Note(None, "", (), (), (), v) for v in (Verdict.RIGHT, Verdict.DOOMED)]


def test_ablated_examples_lack_what_they_are_to_lack() -> None:
    prompt, reference, chain = "A48-2-9?", "48-2=46\n46-9=37.", "48-2-9=37."
    whole = example(prompt, reference, chain, RECIPE)
    assert whole == (asked(prompt, reference, chain), "0:48-2=46-9=37/37abV.")
    assert example(prompt, reference, chain, RECIPE, first=True)[1] == "0:48-2=46-9=37abV."
    assert example(prompt, reference, chain, SpareRecipe(form="labels")) == (whole[0], "V.")
    ask, text = example(prompt, reference, chain, SpareRecipe(reference=False))
    assert ask == "A48-2-9?|1:48-2-9=37.#" and text == "0:48-2=46-9=37/37V."
    assert FAMILIES["A"].score(prompt, reference) == 1.0
