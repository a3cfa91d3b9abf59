"""The probability of a state's last line: that of its tokens under the model, free where the cache knows them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anystep import UsageError, verify
from anystep.language import LanguageProcess
from anystep.ledger import Ledger, Limit
from anystep.testing import check_reward, counted_torch
from anystep.testing.limits import unlimited
from models import chain_engine, tiny_engine


def test_it_is_the_product_of_the_line_s_token_probabilities_and_free_in_the_writer_s_cache() -> None:
    engine = chain_engine()
    process = LanguageProcess(engine, "A48-2-9?", stop="\n", end=".", temperature=0.7, max_tokens=60)
    keys = np.array([3, 4], np.uint64)
    states, check, seen = process.start(keys, unlimited()).states, verify.line_probability(engine), []
    assert np.isnan(check(states, unlimited()).values).all()  # nothing written
    for _ in range(2):
        before = states.tokens
        states = process.step(states, keys, unlimited(), "step").states
        scored = check(states, Limit(Ledger(), "check"))
        assert scored.cost.tokens == 0
        for row, tokens in enumerate(states.tokens):
            with torch.no_grad():
                model = engine.model
                logs = model.logits(model(torch.tensor([tokens]))[0]).log_softmax(-1)
            exact = sum(float(logs[at - 1, tokens[at]]) for at in range(len(before[row]), len(tokens)))
            assert scored.values[row] == pytest.approx(np.exp(exact), rel=1e-3)
            seen.append(scored.values[row])
    assert len(seen) == 4


def test_the_rule_and_the_learned_part_are_both_needed() -> None:
    engine = chain_engine()
    process = LanguageProcess(engine, "48-2-9?g", stop="\n", end=".", max_tokens=60)
    told = process.opening("48-2-9?g")
    encode = engine.tokenizer.encode
    lines = [(*told.tokens[0], *encode(text)) for text in ("48-2=46\n", "48-2=45\n")]
    states = type(told)(tuple(lines), told.starts * 2, engine.tokenizer)
    plain, cast = (make(engine)(states, unlimited()).values for make in (verify.line_probability, verify.cast_out))
    assert plain.min() > 0 and cast.tolist() == [plain[0], 0.0]
    check = verify.cast_out(engine)
    check_reward(check, states, lambda: counted_torch(engine.model))
    check.forget()
    check.warm(states)
    assert check(states, Limit(Ledger(), "check")).cost.tokens == 0


def test_another_model_s_states_are_refused() -> None:
    process = LanguageProcess(chain_engine(), "A48-2-9?")
    states = process.start(np.array([1], np.uint64), unlimited()).states
    other = tiny_engine(vocab=64)
    other.tokenizer = type("Other", (), {"size": 7})()  # type: ignore[assignment]
    with pytest.raises(UsageError, match="engine that writes"):
        verify.line_probability(other)(states, unlimited())
    with pytest.raises(UsageError, match="line_probability"):
        verify.line_probability(3)  # type: ignore[arg-type]
