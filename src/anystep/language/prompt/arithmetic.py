"""Three templates for a question of arithmetic: its result at once, one operation a line, or tens and ones apart."""

from __future__ import annotations

from anystep.errors import UsageError

END = "</answer>"

_TOLD = (
    "Write the problem as one equation with its result, then the answer.",
    "Work from left to right, one operation on each line, then give the answer.",
    "Split each operation into smaller ones, tens and ones apart, one equation on each line, then give the answer.",
)
_SHOTS = (
    (
        "What is 27 + 45 - 13?",
        "59",
        ("27 + 45 - 13 = 59",),
        ("27 + 45 = 72", "72 - 13 = 59"),
        ("20 + 40 = 60", "7 + 5 = 12", "60 + 12 = 72", "72 - 10 = 62", "62 - 3 = 59"),
    ),
    (
        "What is 6 * 4 * 3?",
        "72",
        ("6 * 4 * 3 = 72",),
        ("6 * 4 = 24", "24 * 3 = 72"),
        ("6 * 4 = 24", "20 * 3 = 60", "4 * 3 = 12", "60 + 12 = 72"),
    ),
)


def arithmetic_templates(question: str) -> tuple[str, str, str]:
    """The question behind two worked ones, in plain text: short, guided and decomposed. An answer has one equation a
    line, and ends with `<answer>59</answer>`. UsageError for a blank question."""
    if not isinstance(question, str) or not question.strip():
        raise UsageError(f"arithmetic_templates({question!r}): a question, such as 'What is 27 + 45 - 13?'")
    short, guided, decomposed = (_written(form, question.strip()) for form in range(3))
    return short, guided, decomposed


def _written(form: int, question: str) -> str:
    shown = [_TOLD[form]]
    for asked, answer, *worked in _SHOTS:
        lines = "\n".join(worked[form])
        shown.append(f"Question: {asked}\nAnswer:\n{lines}\n<answer>{answer}{END}")
    return "\n\n".join([*shown, f"Question: {question}\nAnswer:\n"])
