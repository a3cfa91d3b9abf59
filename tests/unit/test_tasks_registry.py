import math
import sys
from types import ModuleType

import pytest

from anystep import tasks
from anystep.errors import Unsupported, UsageError
from anystep.tasks.equations import read_chain
from anystep.tasks.word_problems import LEVELS, word_problems


@pytest.mark.parametrize("name", ["procbench", "word-problems", "programs", "lines"])
def test_the_same_call_gives_the_same_tasks_and_splits_share_none(name):
    one, again = tasks.load(name, 40, seed=3), tasks.load(name, 40, seed=3)
    assert [t.prompt for t in one] == [t.prompt for t in again]
    assert [t.id for t in one] == [t.id for t in again] and len({t.id for t in one}) == 40
    assert [t.prompt for t in tasks.load(name, 10, seed=3)] == [t.prompt for t in one[:10]]
    assert {str(t.prompt) for t in one}.isdisjoint(str(t.prompt) for t in tasks.load(name, 100, seed=4, split="train"))


def test_a_pinned_item_keeps_its_content():
    assert tasks.load("procbench", 1, family="delete", steps=2)[0].meta["start"] == "bgeggb"
    assert tasks.load("word-problems", 1, level=1)[0].meta["question"] == (
        "Leo has 3 bags with 6 stickers in each. Leo gives 3 stickers to Eva. How many stickers does Leo have now?"
    )
    (program,) = tasks.load("programs", 1, level=1)
    assert program.meta["question"] == "Return the list of the numbers in xs, each with its sign changed."
    assert program.meta["problem"].shown[1].arguments == ([16, 6, -6, 20, 8],)


def test_word_problems_are_sound():
    for level in LEVELS:
        for task in word_problems(200, level=level, split="train"):
            meta = task.meta
            assert task.score(meta["chain"]) == 1.0
            reading = read_chain(meta["question"], meta["chain"])
            assert reading.score == 1.0 and all(reading.grounded), meta
            assert len(reading.equations) == 2 and [f"{e.left} = {e.right}" for e in reading.equations] == list(
                meta["equations"]
            )
            assert task.score("The answer is " + str(int(task.reference) + 1)) == 0.0
            assert int(task.reference) >= 0 and task.extract("") is None
            assert all(str(number) in meta["question"] for number in meta["numbers"])


def test_a_split_is_of_the_numbers_so_no_name_change_leaks_a_test_problem():
    seen = {}
    for split in ("train", "dev", "test"):
        for task in word_problems(300, level=1, split=split):
            key = (task.meta["scheme"], task.meta["equations"])
            assert seen.setdefault(key, split) == split


def test_templates_show_worked_examples_and_end_at_the_question():
    (chat,), (plain,) = word_problems(1), word_problems(1, style="plain")
    assert [m["role"] for m in chat.prompt[:3]] == ["system", "user", "assistant"] and chat.prompt[-1]["role"] == "user"
    assert chat.prompt[-1]["content"] == chat.meta["question"] == plain.meta["question"]
    assert plain.prompt.endswith(f"{plain.meta['question']}\nAnswer:\n")


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda: tasks.load("word-problem", 3), r'tasks.load\("word-problems", 3\)'),
        (lambda: tasks.load("procbench", 3, famly="x"), "family="),
        (lambda: tasks.load("procbench", 3, family="dlete"), r'ProcBench\("delete"'),
        (lambda: tasks.load("word-problems", 3, level=9), "level"),
        (lambda: tasks.load("word-problems", 3, style="html"), "style"),
        (lambda: tasks.load("word-problems", 0), "at least 1"),
        (lambda: tasks.load("word-problems", True), "at least 1"),
        (lambda: tasks.load("word-problems", 3, split="valid"), "train, dev, test"),
    ],
)
def test_mistakes_are_one_line_with_the_call_that_was_meant(call, meant):
    with pytest.raises(UsageError, match=meant) as error:
        call()
    assert "\n" not in str(error.value)


def test_chains_are_loaded_when_asked_for(monkeypatch):
    module = ModuleType("anystep.tasks.chains")
    module.chains = lambda n, *, split="test", seed=0, families=None, level=None: [(n, split, seed, families, level)]
    monkeypatch.setitem(sys.modules, "anystep.tasks.chains", module)
    assert tasks.load("chains", 2, seed=5, split="dev", level=1) == [(2, "dev", 5, None, 1)]
    with pytest.raises(UsageError, match="families="):
        tasks.load("chains", 2, family="x")


def test_names_are_what_load_takes():
    own = {"chains", "lines", "premises", "procbench", "word-problems", "programs", "humaneval"}
    assert set(tasks.names()) == {*own, "reasoning-gym:<dataset>"}


class TestReasoningGym:
    @pytest.fixture(autouse=True)
    def package(self):
        pytest.importorskip("reasoning_gym")

    @pytest.mark.parametrize("dataset", ["chain_sum", "spell_backward", "countdown", "gcd", "spiral_matrix"])
    def test_their_answers_score_one_and_others_less(self, dataset):
        for task in tasks.load(f"reasoning-gym:{dataset}", 5, seed=1):
            assert task.score(f"Let me think.\n<answer>{task.reference}</answer>") == 1.0
            assert task.score("<answer>qq</answer>") < 1.0
            assert task.score("") == 0.0

    def test_configuration_reaches_the_dataset(self):
        for task in tasks.reasoning_gym("chain_sum", 5, min_terms=6, max_terms=6):
            assert task.meta["entry"]["num_terms"] == 6

    def test_seeds_and_splits_do_not_overlap(self):
        drawn = [
            {
                t.prompt
                for t in tasks.load("reasoning-gym:chain_sum", 20, seed=seed, split=split, min_digits=6, max_digits=6)
            }
            for seed in (0, 1)
            for split in ("train", "test")
        ]
        assert len(set.union(*drawn)) == sum(map(len, drawn))

    @pytest.mark.parametrize("dataset", ["countdown", "spiral_matrix", "polynomial_multiplication", "string_insertion"])
    def test_an_answer_that_is_a_program_is_not_run(self, dataset, tmp_path):
        mark = tmp_path / "ran"
        (task,) = tasks.reasoning_gym(dataset, 1)
        for program in (
            f"open({str(mark)!r}, 'w')",
            f"__import__('pathlib').Path({str(mark)!r}).touch()",
            "9**9**9**9",
        ):
            assert task.score(f"<answer>{program}</answer>") == 0.0
        assert not mark.exists()

    def test_a_scorer_that_crashes_gives_nan(self, monkeypatch):
        from reasoning_gym.arithmetic.chain_sum import ChainSumDataset

        (task,) = tasks.reasoning_gym("chain_sum", 1)
        monkeypatch.setattr(ChainSumDataset, "score_answer", lambda *a: 1 / 0)
        assert math.isnan(task.score("<answer>3</answer>"))

    @pytest.mark.parametrize(
        ("call", "meant"),
        [
            (lambda: tasks.load("reasoning-gym:chainsum", 2), r'reasoning_gym\("chain_sum"'),
            (lambda: tasks.reasoning_gym("chain_sum", 2, min_term=3), "min_terms="),
            (lambda: tasks.reasoning_gym("chain_sum", 2, min_terms=-1), "refuses"),
        ],
    )
    def test_mistakes(self, call, meant):
        with pytest.raises(UsageError, match=meant):
            call()


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    with pytest.raises(Unsupported, match="pip install reasoning-gym"):
        tasks.load("reasoning-gym:chain_sum", 1)
