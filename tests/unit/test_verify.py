"""Rewards on the states they are given: the right task's, and a clear line for those they cannot read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from anystep import Ledger, Limit, tasks, verify
from anystep.errors import UsageError
from anystep.language import LanguageProcess
from models import tiny_engine


@dataclass
class Written:
    """States as a reward sees them: a prompt and a text each."""

    pairs: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.pairs)

    def prompts(self) -> tuple[str, ...]:
        return tuple(prompt for prompt, _ in self.pairs)

    def texts(self) -> tuple[str, ...]:
        return tuple(text for _, text in self.pairs)


def values(reward: Any, *pairs: tuple[str, str]) -> list[float]:
    return list(reward(Written(pairs), Limit(Ledger(), "test")).values.tolist())


def test_an_oracle_of_many_knows_each_task_by_its_prompt_in_a_chat_template() -> None:
    one, other = tasks.load("word-problems", 2, seed=1)
    assert one.reference != other.reference
    framed = [f"<|user|>{task.prompt[-1]['content']}<|end|><|assistant|>" for task in (one, other)]  # type: ignore[index]
    said = f"The answer is {one.reference}."
    assert values(verify.oracle(one, other), (framed[0], said), (framed[1], said)) == [1.0, 0.0]
    with pytest.raises(UsageError, match="none of its tasks has the prompt"):
        values(verify.oracle(one, other), ("something else", said))


def test_oracles_of_different_problems_are_different_though_their_ids_are_one() -> None:
    """Equal rewards are merged and scored by one of them."""
    from dataclasses import replace

    one, other = tasks.load("word-problems", 2, seed=1)
    assert verify.oracle(one) != verify.oracle(replace(other, id=one.id))
    assert verify.oracle(one) == verify.oracle(one)


def test_a_chain_reward_says_which_models_it_reads() -> None:
    with pytest.raises(UsageError, match=r"'Y' is not in .* Use it with model='chainlm-2m'") as error:
        values(verify.chain_steps(), ("You are here", "1\n"))
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize("prompt", [[], ["hello"], 5, None, [1]])
def test_what_is_no_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(UsageError, match=r"is no prompt: give text, or messages such as \[\{'role'"):
        LanguageProcess(tiny_engine(), prompt)
