"""One's own problems: what is read, what is told by line, and how answers are compared."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from anystep.errors import UsageError
from anystep.tasks.data import Unscored, grader, load_data
from anystep.tasks.data.spelling import plain


def lines(tmp_path: Path, *rows: Any, name: str = "problems.jsonl", raw: bytes = b"") -> Path:
    path = tmp_path / name
    path.write_bytes(raw or "".join(json.dumps(r) + "\n" for r in rows).encode())
    return path


def test_a_file_of_questions_and_answers_is_tasks(tmp_path: Path) -> None:
    data = load_data(
        lines(tmp_path, {"id": "a", "question": "2 + 2?", "answer": 4}, {"question": "1/2?", "answer": "0.5"})
    )
    assert [(t.id, t.prompt, t.reference) for t in data.tasks] == [("a", "2 + 2?", "4"), ("2", "1/2?", "0.5")]
    assert data.flaws == () and data.unanswered == 0
    assert [t.score("Answer: 4") for t in data.tasks] == [1.0, 0.0]


BAD = b"".join(
    [
        b"\xef\xbb\xbf" + b'{"question": "one", "answer": "1"}\r\n',  # a mark of byte order, and Windows' line ends
        b"\n",
        b"{bad\n",
        b'["a list"]\n',
        b'{"question": "bad bytes \xff", "answer": "1"}\n',
        b'{"question": "surrogate \\ud800", "answer": "1"}\n',
        b'{"question": "no answer"}\n',
        b'{"problem": "another name", "answer": "1"}\n',
        b'{"question": "null", "answer": null}\n',
        b'{"question": "an object", "answer": {"a": 1}}\n',
        b'{"question": "not JSON", "answer": NaN}\n',
        b'{"question": 5, "answer": "1"}\n',
        b'{"question": "  ", "answer": "1"}\n',
        b'{"question": "deep", "answer": ' + b"[" * 100_000 + b"}\n",
        b'{"question": "digits", "answer": ' + b"1" * 5_000 + b"}\n",
        b'{"id": "1", "question": "the id of line 1", "answer": "1"}\n',
        '{"question": "one line\u2028still\u0085it, \\u0000 and \u202e", "answer": "1"}\n'.encode(),
        b'{"question": "last", "answer": "1"}',
        b"\n\n",
    ]
)


def test_what_is_wrong_is_told_by_line_and_the_rest_runs(tmp_path: Path) -> None:
    data = load_data(lines(tmp_path, raw=BAD))
    said = dict((f.line, f.text) for f in data.flaws)
    for line, part in {
        2: "a blank line",
        3: "not JSON: Expecting property name enclosed in double quotes at column 2",
        4: "not an object but a list",
        5: "not UTF-8 at byte 24",
        6: "1 lone surrogate, read as U+FFFD",
        7: "no answer: it runs unscored",
        8: "no question (it has problem, answer): left out",
        9: "no answer",
        10: "the answer is an object",
        11: "NaN is no JSON value",
        12: "neither text nor messages",
        13: "the question is empty",
        14: "nested too deep",
        15: "Exceeds the limit",
        16: "its id '1' is that of line 1 too",
    }.items():
        assert part in said.pop(line)
    assert not said
    assert [t.id for t in data.tasks] == ["1", "6", "7", "9", "10", "1:16", "17", "18"]
    assert [math.isnan(t.score("1")) for t in data.tasks] == [False, False, True, True, True, False, False, False]
    assert data.unanswered == 3 and data.tasks[1].prompt == "surrogate \ufffd"
    assert data.tasks[6].prompt == "one line\u2028still\u0085it, \x00 and \u202e"
    assert data.told(2)[:2] == [f"problems.jsonl:{f.line}: {f.text}" for f in data.flaws[:2]]
    assert data.told(2)[2] == "problems.jsonl: and 13 more like these"


def test_a_line_of_ten_megabytes_is_a_line(tmp_path: Path) -> None:
    data = load_data(lines(tmp_path, {"question": "x" * 10_000_000, "answer": "1"}, {"question": "q", "answer": "1"}))
    assert [len(t.prompt) for t in data.tasks] == [10_000_000, 1] and data.flaws == ()


def test_nothing_usable_is_one_error_that_shows_the_format(tmp_path: Path) -> None:
    for raw in (b"{bad\n", b"\n", b"[1, 2]", b'{"q": 1}\n', b"[\n"):
        with pytest.raises(UsageError, match=r'nothing in problems.jsonl can be used.*\{"question": "What is 2'):
            load_data(lines(tmp_path, raw=raw))
    with pytest.raises(UsageError, match="it is empty"):
        load_data(lines(tmp_path, name="empty.jsonl"))
    with pytest.raises(UsageError, match="is UTF-16; save it as UTF-8"):
        load_data(lines(tmp_path, raw='{"question": "x"}'.encode("utf-16")))
    for missing in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(UsageError, match="cannot read"):
            load_data(missing)


def test_no_answers_at_all_is_one_line_not_thousands(tmp_path: Path) -> None:
    data = load_data(lines(tmp_path, *({"prompt": f"q{i}"} for i in range(300))))
    assert data.told() == [
        "problems.jsonl: no problem has an answer (under the names that are known); all run unscored. "
        "Name its field with --answer-field"
    ]
    assert data.unanswered == 300 and isinstance(data.tasks[0].score("x"), Unscored)


@pytest.mark.parametrize(
    ("row", "prompt", "reference"),
    [
        ({"question": "q", "problem": "p", "answer": "a", "solution": "s"}, "q", "a"),
        ({"problem": "p", "solution": "s", "source": "x"}, "p", "s"),
        ({"instruction": "i", "input": "more", "output": "o"}, "i", "o"),
        ({"messages": [{"role": "user", "content": "m"}], "target": True}, ({"role": "user", "content": "m"},), "true"),
        ({"prompt": "p", "answers": ["a", 2, 2.0, 0.5]}, "p", "a | 2 | 0.5"),
    ],
)
def test_fields_are_found_by_name(tmp_path: Path, row: dict[str, Any], prompt: Any, reference: str) -> None:
    (task,) = load_data(lines(tmp_path, row)).tasks
    assert (task.prompt, task.reference) == (prompt, reference)


def test_one_rule_finds_the_fields_of_a_whole_file(tmp_path: Path) -> None:
    """A row without the file's answer field is unscored: `label` is not what the others call their answer."""
    rows = [{"question": f"q{i}", "answer": "1", "label": "easy"} for i in range(3)]
    data = load_data(lines(tmp_path, *rows, {"question": "q", "label": "hard"}, {"input": "q", "answer": "1"}))
    assert data.fields.answer == ("answer",) and [t.reference for t in data.tasks] == ["1", "1", "1", ""]
    told = load_data(lines(tmp_path, *rows, {"input": "q", "answer": "1"}), question="question,input", answer="label")
    assert [t.reference for t in told.tasks] == ["easy"] * 3 + [""] and len(told.tasks) == 4
    with pytest.raises(UsageError, match="no row has the field 'anser'; write --answer-field answer"):
        load_data(lines(tmp_path, *rows), answer="anser")


def test_messages_pass_through_with_their_images(tmp_path: Path) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    asked = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [image, {"type": "text", "text": "What?"}]},
    ]
    (task,) = load_data(lines(tmp_path, {"messages": asked, "answer": "a cat"})).tasks
    assert task.prompt == tuple(asked) and task.meta["question"] == "[image_url]\nWhat?"
    (task,) = load_data(lines(tmp_path, {"messages": asked, "answer": "a"}), template="{question} One word.").tasks
    assert task.prompt[1]["content"] == [image, {"type": "text", "text": "What? One word."}]
    for broken in ([{"role": "user"}], [{"content": "x"}], ["x"], [{"role": "user", "content": [1]}], []):
        with pytest.raises(UsageError, match="nothing in"):
            load_data(lines(tmp_path, {"messages": broken, "answer": "a"}))


def test_a_recorded_conversation_s_last_turn_is_the_answer_and_is_not_shown(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
    (task,) = load_data(lines(tmp_path, {"messages": talk})).tasks
    assert task.prompt == (talk[0],) and task.reference == "4"


def test_a_template_wraps_the_question_and_never_shows_the_answer(tmp_path: Path) -> None:
    path = lines(tmp_path, {"question": "2 + 2?", "answer": "4", "hint": "count {answer}"})
    (task,) = load_data(path, template="{hint}\n{question}\nPut it in \\boxed{answer} {or} {this}.").tasks
    assert task.prompt == "count {answer}\n2 + 2?\nPut it in \\boxed{answer} {or} {this}."
    with pytest.raises(UsageError, match="has no {question}"):
        load_data(path, template="Answer:")


def test_csv_and_a_json_list_are_read_too(tmp_path: Path) -> None:
    table = b'question,answer\r\n"two,\nlines",1\r\n"x",2,3\r\n\r\n\xff,1\r\nlast,4\r\n'
    data = load_data(lines(tmp_path, name="p.csv", raw=table))
    assert [(t.id, t.prompt, t.reference) for t in data.tasks] == [("2", "two,\nlines", "1"), ("7", "last", "4")]
    assert data.told() == ["p.csv:4: 3 cells under 2 headings: left out", "p.csv:6: not UTF-8: left out"]
    listed = lines(tmp_path, name="p.json", raw=b'[\n {"question": "a", "answer": 1},\n 5]')
    assert load_data(listed).told() == ["p.json:2: not an object but a number: left out"]


def test_only_the_first_problems_when_asked(tmp_path: Path) -> None:
    data = load_data(lines(tmp_path, raw=BAD), most=2)
    assert [t.id for t in data.tasks] == ["1", "6"] and max(f.line for f in data.flaws) == 6


@pytest.mark.parametrize(
    ("scorer", "answer", "right", "wrong"),
    [
        ("exact", "New York", ["New  York", "Well.\nAnswer: New York", "\\boxed{New York}", "The answer is New York."],
         ["new york", "York", ""]),
        ("numeric", "1,234.50", ["1234.5", "It is $1,234.50", "so 2469/2", "**Answer:** 1234.5 apples"],
         ["1234", "none", ""]),
        ("numeric", "18 - 2 = 16\n#### 16", ["16", "16.0", "She has 16 eggs."], ["18", "2"]),
        ("math", "\\frac{1}{2}", ["0.5", "\\boxed{1/2}", "$\\dfrac12$", "The answer is \\boxed{\\frac{2}{4}}"],
         ["2", "", "x"]),
        ("math", "x^2 + x", ["x(x+1)", "\\boxed{x^2+x}"], ["x^2", "x"]),
    ],
)  # fmt: skip
def test_a_scorer_s_verdicts(tmp_path: Path, scorer: str, answer: str, right: list[str], wrong: list[str]) -> None:
    (task,) = load_data(lines(tmp_path, {"question": "q", "answer": answer}), scorer).tasks
    assert [task.score(text) for text in right] == [1.0] * len(right)
    assert [task.score(text) for text in wrong] == [0.0] * len(wrong)


@pytest.mark.parametrize(
    ("scorer", "texts"),
    [
        ("exact", ["New  York", "Answer: New York", "\\boxed{New York}"]),
        ("numeric", ["0.5", "It is 1/2.", ".50", "Answer: 5e-1"]),
        ("math", ["\\boxed{\\dfrac{1}{2} x}", "Answer: \\frac{1}{2}x", "$\\displaystyle\\frac{1}{2} x$."]),
        ("choice", ["B", "(B)", "The answer is B.", "\\boxed{B}"]),
    ],
)
def test_equal_answers_are_one_vote(tmp_path: Path, scorer: str, texts: list[str]) -> None:
    (task,) = load_data(lines(tmp_path, {"question": "q", "answer": texts[0]}), scorer).tasks
    votes = {task.extract(text) for text in texts}
    assert len(votes) == 1 and None not in votes
    assert [task.score(text) for text in texts] == [1.0] * len(texts)


CAPITALS = ["Rome", "Paris", "Bonn"]


@pytest.mark.parametrize(
    ("choices", "answer"),
    [
        (CAPITALS, "B"), (CAPITALS, 1), (CAPITALS, "Paris"), (CAPITALS, "paris"),
        ({"text": CAPITALS, "label": ["1", "2", "3"]}, "2"), ({"A": "Rome", "B": "Paris", "C": "Bonn"}, "B"),
        (["1", "2", "3"], "2"), ([5, 1, 9], 1), (None, "(B)"),
    ],
)  # fmt: skip
def test_a_choice_s_answer_is_a_letter_a_text_or_a_place(tmp_path: Path, choices: Any, answer: Any) -> None:
    (task,) = load_data(lines(tmp_path, {"question": "q", "answer": answer, "choices": choices}), "choice").tasks
    assert task.reference == "B" and task.score("The answer is (B)") == 1.0 and task.score("A") == 0.0
    if choices:
        assert "A. " in task.prompt and "B. " in task.prompt and "letter" in task.prompt
        assert task.extract("Z") is None
    if choices == CAPITALS:
        assert [task.score(text) for text in ("Paris", "Answer: paris.", "Rome")] == [1.0, 1.0, 0.0]


def test_an_answer_that_is_no_option_is_unscored(tmp_path: Path) -> None:
    data = load_data(lines(tmp_path, {"question": "q", "answer": "Oslo", "choices": CAPITALS}), "choice")
    assert data.told() == [
        "problems.jsonl:1: no answer to score by: the answer 'Oslo' is none of the 3 choices: it runs unscored"
    ]
    assert math.isnan(data.tasks[0].score("B"))


OWN = """
def half(text, row):
    if "boom" in text:
        raise KeyError(row["question"])
    return {"none": None, "true": True, "many": 7, "words": "x"}.get(text, 0.5)

def shout(text):
    return text.upper()
"""


def test_a_scorer_of_one_s_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    path = lines(tmp_path, {"question": "q"})
    own = f"python:{tmp_path / 'mine.py'}:half"
    (task,) = load_data(path, own, extract=f"python:{tmp_path / 'mine.py'}:shout").tasks
    assert (task.score("anything"), task.score("true"), task.extract("abc")) == (0.5, 1.0, "ABC")
    for text, why in {
        "boom": "the scorer failed: KeyError: 'q'",
        "none": "the scorer gave no score",
        "many": "the scorer gave 7; a score is in [0, 1]",
        "words": "the scorer failed: ValueError",
    }.items():
        score = task.score(text)
        assert isinstance(score, Unscored) and math.isnan(score) and why in score.why


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def f(:\n", r"mine\d.py:1: SyntaxError"),
        ("x = 1\ny = nothing\n", r"mine\d.py:2: NameError: name 'nothing'"),
        ("def other(text, row): ...\n", "has no function 'f'; it has other"),
    ],
)
def test_an_error_in_one_s_own_file_names_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / f"mine{len(text) % 10}.py"
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        grader(f"python:{path}:f")


@pytest.mark.parametrize(
    "name", ["exakt", "python:", "python:nothing", "python:no.such.module", "python:/no/file.py:f"]
)
def test_a_scorer_that_is_none_says_what_was_meant(name: str) -> None:
    with pytest.raises(UsageError, match=r"--scorer exact\||python:module.function"):
        grader(name)


def test_a_number_has_one_spelling() -> None:
    found = {plain(Fraction(x)) for x in ("0.50", "1/2", "2/4")}
    assert found == {"0.5"}
    assert [plain(Fraction(x)) for x in ("-3", "-0.05", "1/3", "100", "-7/2")] == ["-3", "-0.05", "1/3", "100", "-3.5"]
