"""Each family that the engine runs, against transformers on the same tiny random weights, and against itself without a
cache: one pass, chunked prefill, forks decoded side by side, and greedy tokens."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models

from anystep.errors import ModelError
from anystep.language import load
from anystep.language.engine import plan as planning
from anystep.language.engine.architectures import config_json, folder_config
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Llama
from models import text, tiny_config

transformers = pytest.importorskip("transformers")

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
THREE = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
WINDOW = 7
KINDS = {
    "llama": ("Llama", {}),
    "llama, scaled as Llama 3": ("Llama", {"rope_parameters": THREE, "head_dim": 16}),
    "llama, scaled linearly": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}, "tie_word_embeddings": True},
    ),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 16}),
    "mistral with a window": ("Mistral", {"sliding_window": WINDOW}),
    "qwen2": ("Qwen2", {}),
    "qwen2, windows from the second layer on": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1, "tie_word_embeddings": True},
    ),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "gemma3": (
        "Gemma3",
        {"head_dim": 16, "sliding_window": WINDOW, "sliding_window_pattern": 3, "query_pre_attn_scalar": 11},
    ),
    "gemma3, scaled": (
        "Gemma3",
        {
            "head_dim": 8,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "num_key_value_heads": 1,
        },
    ),
}


def theirs(kind: str):
    """A tiny random model of transformers, wide enough that the next token is neither certain nor uniform."""
    name, options = KINDS[kind]
    made = getattr(transformers, "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config")(**SHAPE | options)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(made).eval().requires_grad_(False)
    for part, parameter in model.named_parameters():
        spread = 0.3 if "embed" not in part or name != "Gemma3" else 0.1
        parameter.normal_(0.0, spread if "norm" not in part else 0.1)
        if "norm" in part and name != "Gemma3":
            parameter.add_(1.0)
    return model


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """transformers' model, and our engine of the directory that it saves."""
    model, folder = theirs(request.param), tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    words = {f"w{i}": i for i in range(64)}
    Tokenizer(models.WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    return model, load(folder, say=lambda line: None)


def wanted(model, tokens) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([tokens]), use_cache=False).logits[0]


def test_one_pass_gives_their_logits(pair):
    model, engine = pair
    tokens = text(60)
    want = wanted(model, tokens)
    assert (engine.forward(torch.tensor([tokens]))[0] - want).abs().max() < 1e-4
    assert want.softmax(-1).max(-1).values.mean() < 0.95 and want.std() > 0.1
    mask = torch.ones(1, 60, 60, dtype=torch.bool).tril()
    assert (engine.forward(torch.tensor([tokens]), mask)[0] - want).abs().max() < 1e-4


@pytest.mark.parametrize("chunk, share", [(planning.CHUNK, planning.SHARE), (planning.CHUNK, 1), (5, 1), (5, 10**9)])
def test_forks_decoded_side_by_side_give_their_logits(pair, monkeypatch, chunk, share):
    """Prompts that share much, little and nothing, in stretches longer and shorter than the window, by reference and
    copied; some rows end sooner, and a second session begins from what the first wrote back."""
    monkeypatch.setattr(planning, "CHUNK", chunk)
    monkeypatch.setattr(planning, "SHARE", share)
    monkeypatch.setattr("anystep.language.engine.rows.SHARE", share)
    model, engine = pair
    engine.cache.trim(0)
    shared = text(23, seed=1)
    prompts = [shared, shared, shared[:3], shared + text(2, 2), shared + text(15, 3), shared[:11] + text(4, 4), text(1)]
    for _ in range(2):
        seen = []
        with engine.open(engine.plan(prompts)) as session:
            for step in range(14):
                rows = [row for row in range(len(prompts)) if row != 1 or step < 6]
                logits = session.logits(rows)
                seen += [(row, len(session.tokens[row]) - 1, mine) for row, mine in zip(rows, logits, strict=True)]
                session.append([3 + (5 * step + 11 * row) % 61 for row in rows], rows)
            prompts = [tuple(tokens) for tokens in session.tokens]
        want = [wanted(model, tokens) for tokens in prompts]
        for row, at, mine in seen:
            assert (mine - want[row][at]).abs().max() < 1e-4, (row, at)


def test_greedy_tokens_are_those_of_generate(pair):
    model, engine = pair
    prompts = [text(9, seed=5), text(30, seed=6)]
    with engine.open(engine.plan(prompts)) as session:
        for _ in range(25):
            session.append(session.logits().argmax(-1).tolist())
        for prompt, tokens in zip(prompts, session.tokens, strict=True):
            with torch.no_grad():
                want = model.generate(torch.tensor([prompt]), max_new_tokens=25, do_sample=False)[0].tolist()
            assert tokens == want


@pytest.mark.parametrize("form, bound", [("fp16", 0.02), ("bf16", 0.2), ("int8", 1.0)])
def test_weight_formats_keep_biases_and_norms(pair, form, bound):
    """Rounded weights move logits a little; a bias or a norm left out would move them by more than their spread."""
    model, engine = pair
    tokens = torch.tensor([text(40)])
    from anystep.language.engine.quantise import quantise

    again = Llama(engine.config).eval().requires_grad_(False)
    again.load_state_dict(engine.model.state_dict())
    moved = Engine(quantise(again, form), engine.tokenizer).forward(tokens) - engine.forward(tokens)
    assert 0 < float(moved.abs().mean()) < bound * float(engine.forward(tokens).std())


def test_a_shape_is_read_back_as_it_was_written(pair):
    _, engine = pair
    factors = engine.config.rope_factors
    if len(set(factors)) > 1:
        with pytest.raises(ModelError, match="No family"):
            config_json(engine.config)
    else:
        assert folder_config(json.loads(json.dumps(config_json(engine.config))), "it") == engine.config


GOOD = {"model_type": "llama", **{k: v for k, v in SHAPE.items() if v is not None}}


@pytest.mark.parametrize(
    "change, line",
    [
        ({"model_type": "mamba"}, "'mamba'.*from_transformers"),
        ({"attention_bias": True}, "biases"),
        ({"mlp_bias": True}, "biases"),
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "'yarn'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ({"rope_parameters": {"rope_type": "default", "mrope_section": [1, 2]}}, "mrope_section"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "default"}, "sliding_attention": {}}},
            "by kind of layer",
        ),
        ({"model_type": "qwen3", "layer_types": ["chunked_attention"] * 3}, "'chunked_attention'"),
        ({"model_type": "qwen2", "use_sliding_window": True, "layer_types": ["sliding_attention"]}, "1 layers of 3"),
        ({"model_type": "gemma3_text", "hidden_activation": "silu"}, "'silu'"),
        ({"model_type": "gemma3_text", "final_logit_softcapping": 30.0}, "soft cap"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "both directions"),
        (
            {
                "model_type": "gemma3_text",
                "rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}},
            },
            "'linear'",
        ),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "'low_freq_factor'"),
        ({"hidden_size": "wide"}, "not a sound llama config"),
    ],
)
def test_what_is_not_done_is_refused_by_its_name(change, line):
    with pytest.raises(ModelError, match=line) as error:
        folder_config(GOOD | change, "config.json")
    assert "\n" not in str(error.value)


def test_a_window_wider_than_the_context_is_none():
    assert folder_config(GOOD | {"model_type": "mistral", "sliding_window": 512}, "it").windows == ()
    assert folder_config(GOOD | {"model_type": "mistral", "sliding_window": 511}, "it").windows == (511,) * 3
    assert tiny_config().windows == ()
