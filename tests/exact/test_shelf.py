"""What lies on the shelf is held against the model's shape before compiled code reads it."""

import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file

from anystep.language.engine.quantise import quantise
from anystep.language.engine.shelf import FORMAT, shelve, shelved
from models import tiny_model

MODEL = {"dim": 64, "hidden": 96, "head_dim": 32, "scale": 0.2, "qkv_bias": True}
DAMAGE = {
    "narrow weight": ("layers.1.down/weight", lambda t: t[:, :32]),
    "flat weight": ("layers.0.o/weight", lambda t: t.flatten()),
    "weight of floats": ("layers.0.o/weight", lambda t: t.float()),
    "weight of bytes": ("head/weight", lambda t: t.view(torch.uint8)),
    "short scale": ("layers.0.qkv/scale", lambda t: t[:-1]),
    "scale of halves": ("layers.0.qkv/scale", lambda t: t.half()),
    "column beyond": ("layers.0.gate_up/columns", lambda t: t + 1_000_000),
    "column before": ("layers.0.gate_up/columns", lambda t: -1 - t),
    "more columns than kept": ("layers.0.gate_up/columns", lambda t: torch.cat([t, t])),
    "columns of floats": ("layers.0.gate_up/columns", lambda t: t.double()),
    "kept too narrow": ("layers.0.gate_up/kept", lambda t: t[:, 1:]),
    "kept too wide a type": ("layers.0.gate_up/kept", lambda t: t.double()),
    "short gain": ("layers.0.qkv/gain", lambda t: t[:3]),
    "no gain": ("layers.0.qkv/gain", None),
    "short bias": ("layers.0.qkv/bias", lambda t: t[:3]),
    "no bias": ("layers.0.qkv/bias", None),
    "another turn": ("layers.0.down/turn", lambda t: t + 1),
    "no kept": ("head/kept", None),
    "short norm": ("norm.weight", lambda t: t[:3]),
    "norm of doubles": ("norm.weight", lambda t: t.double()),
    "no norm": ("norm.weight", None),
    "few embeddings": ("embed_tokens.weight", lambda t: t[:2]),
    "no embeddings": ("embed_tokens.weight", None),
}


@pytest.mark.parametrize("tied", [True, False])
def test_a_shelf_that_does_not_fit_the_shape_is_not_read(tmp_path, tied):
    made, path = tiny_model(**MODEL, tied=tied), tmp_path / "packed.int8"
    shelve(made, quantise(made, "int8"), path)
    tensors = load_file(path)
    about = {"format": FORMAT, "config": json.dumps(asdict(made.config))}
    for what, (name, change) in DAMAGE.items():
        hurt = {n: t.clone() for n, t in tensors.items()}
        old = hurt.pop(name)
        if change is not None:
            hurt[name] = change(old).contiguous()
        save_file(hurt, path, metadata=about)
        assert shelved(path, made.config) is None, what
    save_file(tensors, path, metadata=about)
    assert shelved(path, made.config) is not None
    save_file(tensors, path, metadata={"format": FORMAT, "config": "[]"})
    assert shelved(path, made.config) is None
