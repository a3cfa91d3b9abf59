"""Weight formats: what each keeps, and that a row's result does not depend on its batch."""

import pytest
import torch

from anystep.errors import UsageError
from anystep.language.engine.engine import Engine
from anystep.language.engine.quantise import FORMS, Int4, default_form, quantise
from models import text, tiny_engine, tiny_model

BOUNDS = {"fp32": 0.0, "fp16": 1e-6, "bf16": 1e-3, "int8": 1e-2, "int4": 0.1}  # mean KL on a random model


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tied", [True, False])
def test_each_form_stays_close_and_batch_invariant(form, tied):
    shape = {"tied": tied, "hidden": 64, "dim": 64}
    plain, model = tiny_engine(scale=0.1, **shape), quantise(tiny_model(scale=0.1, **shape), form)
    engine = Engine(model, plain.tokenizer)
    tokens = torch.tensor([text(24, seed=i) for i in range(40)])
    p, q = (e.forward(tokens).log_softmax(-1) for e in (plain, engine))
    assert float((p.exp() * (p - q)).sum(-1).mean()) <= BOUNDS[form]
    alone = torch.cat([engine.forward(row[None]) for row in tokens[:3]])
    assert (alone.log_softmax(-1) - q[:3]).abs().max() < (1e-5 if form in ("fp32", "fp16") else 0.05)


def test_int4_keeps_the_levels_of_weights_that_have_sixteen_a_group():
    torch.manual_seed(0)
    levels = torch.randint(0, 16, (16, 2, 32))
    levels[..., 0], levels[..., 1] = 0, 15
    weight = (levels * 0.5 - 3.0).view(16, 64)
    x = torch.randn(5, 64).bfloat16().float()
    assert torch.allclose(Int4(weight)(x), x @ weight.T, rtol=0.01, atol=0.05)


def test_unknown_forms_and_the_default():
    with pytest.raises(UsageError, match="int4"):
        quantise(tiny_model(), "int3")
    assert default_form(2_000_000) == "fp32"
    assert default_form(134_000_000) == "int8"
