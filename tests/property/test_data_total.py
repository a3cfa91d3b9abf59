"""No bytes in a data file make the reader raise anything but a UsageError; every task it yields can be scored."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from anystep.errors import UsageError
from anystep.tasks.data import load_data
from anystep.tasks.data.scorers import EXTRACTORS, SCORERS
from anystep.tasks.data.spelling import expression, stated

TEXT = st.text(st.characters(codec=None), max_size=12)
SCALAR = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.just("A"), st.just("\\boxed{3}"))
VALUE = st.recursive(SCALAR, lambda v: st.lists(v, max_size=3) | st.dictionaries(TEXT, v, max_size=3), max_leaves=6)
NAME = st.sampled_from(["question", "prompt", "messages", "answer", "label", "id", "choices", "x", "", "\ud800"])
MESSAGE = st.fixed_dictionaries({"role": SCALAR, "content": VALUE})
ROW = st.dictionaries(NAME, VALUE | st.lists(MESSAGE, max_size=2), max_size=5).map(lambda r: json.dumps(r).encode())
LINE = st.one_of(ROW, ROW, st.binary(max_size=30), st.just(b""), st.just(b"\xef\xbb\xbf"), st.just(b"[" * 2000))
END = st.sampled_from([b"\n", b"\r\n", b"\r", b"\xe2\x80\xa8", b","])
FILE = st.lists(st.tuples(LINE, END), max_size=8).map(lambda parts: b"".join(a + b for a, b in parts))


@settings(max_examples=400, deadline=None)
@given(
    FILE, st.sampled_from([".jsonl", ".json", ".csv", ".tsv"]), st.sampled_from(["exact", "numeric", "choice"]), TEXT
)
@example(b'{"question": "q", "answer": 1e999}', ".jsonl", "numeric", "1")
@example(b'{"question": "q", "choices": [], "answer": ""}', ".jsonl", "choice", "A")
@example(b'"', ".csv", "exact", "")
def test_any_file_is_read_or_refused(raw: bytes, suffix: str, scorer: str, said: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"d{suffix}"
        path.write_bytes(raw)
        try:
            data = load_data(path, scorer)
        except UsageError as error:
            assert "\n" not in str(error) or "\n" in suffix
            return
    assert len({t.id for t in data.tasks}) == len(data.tasks) >= 1
    assert len(data.told(3)) <= 4
    for task in data.tasks:
        json.dumps([task.prompt, task.id, task.reference, task.meta]).encode()
        text = task.prompt if isinstance(task.prompt, str) else json.dumps(task.prompt, ensure_ascii=False)
        text.encode()  # what is sent to a model can be sent
        score = task.score(said)
        assert math.isnan(score) or score in (0.0, 1.0)
        assert math.isnan(score) == (not task.meta["references"])
        assert task.extract(said) is None or isinstance(task.extract(said), str)


@settings(max_examples=300, deadline=None)
@given(
    TEXT
    | st.lists(st.sampled_from(["Answer:", "####", "\\boxed{", "}", "the answer is", "3", ".", "\n", "*"])).map(
        " ".join
    )
)
def test_reading_an_answer_is_total(text: str) -> None:
    for extract in (*EXTRACTORS.values(), stated, expression):
        found = extract(text)
        assert found is None or isinstance(found, str)
    assert expression(expression(text)) == expression(text)
    assert set(SCORERS) == {"exact", "numeric", "choice", "math"}
