"""What evidence allows: true notes lead to the checker's labels, and false ones mislead, for nothing is computed."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from anystep.language.train.spare import SpareRecipe, candidate, labels_of, referenced
from anystep.tasks.chains import Verdict
from anystep.tasks.chains.concluded import concluded
from anystep.tasks.chains.notes import note, read


@pytest.mark.parametrize(("family", "level"), [("A", 1), ("A", 2), ("L", 1), ("L", 2), ("C", 1), ("C", 2)])
def test_true_evidence_without_verdicts_gives_the_checkers_labels(family: str, level: int) -> None:
    """But for countdown's moves that are doomed with two numbers left: no evidence is noted of them."""
    rng, recipe = Random(level), SpareRecipe(mix={family: 1.0}, levels={level: 1.0})
    wrong = missed = 0
    for problem, _ in zip(referenced("train", level, recipe), range(120), strict=False):
        chain = candidate(rng, problem.prompt, problem.chain)
        notes = note(problem.prompt, problem.chain, chain)
        blind = [replace(one, verdict=Verdict.RIGHT) for one in notes]
        for true, found in zip(notes, concluded(problem.prompt, problem.chain, chain, blind), strict=True):
            assert found is not None and (found.verdict is Verdict.RIGHT or true.verdict is not Verdict.RIGHT)
            wrong += true.verdict is not Verdict.RIGHT
            if true.verdict is not Verdict.RIGHT and found.verdict is Verdict.RIGHT:
                assert (family, level) == ("C", 2) and true.verdict in (Verdict.DOOMED, Verdict.AFTER)
                missed += 1
        assert [n and n.verdict for n in concluded(problem.prompt, problem.chain, chain, notes)].count(
            Verdict.RIGHT
        ) == [n.verdict for n in notes].count(Verdict.RIGHT)
    assert wrong > 60 and missed < 0.4 * wrong


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("0:48-2=46/46aV\n1:46-9=37/36bV.", (True, False)),  # the result is another
        ("0:48-2=46/46aV\n0:46-9=36/36bV.", (True, False)),  # goes on from another line
        ("0:48-2=46/46aV\n1:46-9=36/36aV.", (True, False)),  # stands for another line
        ("0:48-2=46/46aV\n1:46-9=36/36bV.", (True, True)),  # evidence that is wrong misleads
        ("0:48-2=46/46a!f\n1:46-9=36/36bV.", (True, True)),  # evidence comes before verdicts
        ("0:48-2=46/46aV\n1:45-9=36/36bV.", (True, False)),  # line 1 does not end on 45
        ("0:48-2=46/46aV\n1:46-8=36/36bV.", (True, False)),  # neither what the line does nor what line b does
        ("0:48-2=46/46aV\nwhatever.", (True, None)),
        ("0:48-2=46/46bV.", (False, False)),
    ],
)
def test_evidence_is_compared_with_what_the_line_says(text: str, labels: tuple[bool | None, ...]) -> None:
    chain = "48-2=46\n46-9=36."
    assert labels_of(concluded("A48-2-9?", "48-2=46\n46-9=37.", chain, read(text, 2))) == labels


def test_countdown_is_weighed_by_what_is_left_and_in_reach() -> None:
    prompt, reference = "C1 9 4>37?", "9*4=36\n36+1=37."

    def labels(chain: str, text: str) -> tuple[bool | None, ...]:
        return labels_of(concluded(prompt, reference, chain, read(text, chain.count("\n") + 1)))

    good = "0:9*4=36/36<1+37-35*36>37aV\n"
    assert labels(reference, good + "1:36+1=37/37<>37bV.") == (True, True)
    assert labels("9*4=36\n36+2=38.", good + "1:36+2=38/38<>37bV.") == (True, False)  # a number that is not left
    assert labels("9-4=5\n5-1=4.", "0:9-4=5/5<1+6-4*5>37V\n1:5-1=4/4<>37V.") == (False, False)  # out of reach
    assert labels("8*4=32\n32+1=33.", "0:8*4=32/32<1V\n1:32+1=33/33<>37V.")[0] is False  # not among the numbers
    assert labels("9*4=36.", good[:-1] + ".")[0] is False  # ends too early
    assert labels(reference, "0:9*4=36/36<1!d\n1:36+1=37/37<>37bV.") == (False, False)  # silent: its verdict stands
    assert labels(reference, "0:9*4=36/36<1V\n1:36+1=37/37!i.") == (True, True)  # what is left follows from the lines
