"""The self-evaluation token: its labels, its questions side by side as each alone, its price, and the kept model."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from anystep import Run, UsageError, drive, search, verify
from anystep.language import load
from anystep.language.train import capability as cap
from anystep.language.train.chainlm import policy
from anystep.solve import process_for
from anystep.tasks.chains import chains

PROMPT = "C1 9 4>37?"
RIGHT, WRONG, OTHER = "9*4=36\n36+1=37.", "9-4=5\n5+1=6.", "9+4=13\n13+1=14."


def test_a_label_is_the_chance_to_win_or_tie_against_the_other_samples() -> None:
    group = cap.group_of(PROMPT, [RIGHT, WRONG, WRONG, OTHER, "9*4="], ["1+9=10\n10+4=14."], "win or tie")
    found = {
        chain: (count, label) for chain, count, label in zip(group.chains, group.counts, group.labels, strict=True)
    }
    assert found[RIGHT] == (1, 1.0)
    assert found[WRONG] == (2, 3 / 4) and found[OTHER] == (1, 3 / 4)  # of four others, three are wrong too
    assert found["1+9=10\n10+4=14."] == (0, 4 / 5)
    assert "9*4=" not in found, "an unfinished sample is a rival, not a lesson"
    assert cap.group_of(PROMPT, [RIGHT, WRONG], [], "right").labels == [1.0, 0.0]


def test_questions_stand_at_the_end_and_behind_beginnings() -> None:
    rng = Random(0)
    where = [cap.places(rng, RIGHT, 3) for _ in range(200)]
    assert all(at[0] == len(RIGHT) and len(at) == 4 and all(0 < cut < len(RIGHT) for cut in at[1:]) for at in where)
    ends = np.mean([cut == RIGHT.index("\n") + 1 for at in where for cut in at[1:]])
    assert 0.4 < ends < 0.7
    assert cap.places(rng, RIGHT, 0) == [len(RIGHT)]


def test_side_by_side_each_question_and_token_is_as_if_alone() -> None:
    model, alphabet = policy()
    group = cap.Group(PROMPT, [WRONG, RIGHT], [1, 1], [0.5, 1.0])
    batch = cap.batch_of([group], alphabet, Random(0), cuts=2)
    hidden = model(batch.tokens, batch.positions, batch.attend())[0]
    asks = torch.nonzero(batch.asks[0])[:, 0].tolist()
    assert len(asks) == 6
    for at in asks:
        chain = group.chains[int(batch.branch[0, at]) - 1]
        text = PROMPT + chain[: int(batch.positions[0, at]) - len(PROMPT)] + cap.ASK
        alone = model(torch.tensor([alphabet.encode(text)]))[0, -1]
        assert torch.allclose(hidden[at], alone, atol=1e-4), text
    whole = model(torch.tensor([alphabet.encode(PROMPT + RIGHT)]))[0]
    own = torch.nonzero((batch.branch[0] == 2) & (batch.asks[0] == 0))[:, 0]
    assert torch.allclose(hidden[own], whole[len(PROMPT) :], atol=1e-4)


def test_it_is_trained_once_kept_and_asked_for_one_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    recipe, said = cap.CapabilityRecipe(own=4, drawn=3, tokens=1_500, groups=2), list[str]()
    path = cap.capability(recipe, said.append)
    assert said and cap.TRAINED in path.stem
    said.clear()
    assert cap.capability(recipe, said.append) == path and not said
    engine = load(path)
    reward = verify.self_evaluation_token(engine)
    task = chains(1, "dev")[0]
    runs = [Run(process_for(task, engine, temperature=1.0), m) for m in (search.sample(3), search.best_of_n(3, reward))]
    runs[0].process.forget()
    drive(runs[1])
    paid, population = runs[1].ledger.by[reward.name], runs[1].answer and runs[1].answer.population
    assert population is not None and (population.scores >= 0).all() and (population.scores <= 1).all()
    distinct = len(set(population.states.tokens))
    assert (paid.prompt, paid.generated, paid.evaluations) == (distinct, 0, 2 * distinct)
    text = str(task.prompt) + population.states.texts()[0] + cap.ASK
    logits = engine.model.logits(engine.model(torch.tensor([engine.tokenizer.encode(text)])))[0, -1]
    keep = engine.tokenizer.encode(cap.KEEP)[0]
    assert population.scores[0] == pytest.approx(float(logits.float().softmax(-1)[keep]), abs=1e-4)
    with pytest.raises(UsageError, match="has not learned to answer"):
        verify.self_evaluation_token(load("chainlm-2m"))
    other = process_for(task, load("chainlm-2m"), temperature=1.0)
    with pytest.raises(UsageError, match="these states are not of"):
        drive(Run(other, search.best_of_n(n=1, reward=reward)))
