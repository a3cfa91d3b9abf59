"""Reading GGUF: what a writer wrote comes back, and a bad file is one clear line."""

from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch

from anystep.errors import ModelError
from anystep.language.engine.engine import Engine
from anystep.language.engine.gguf import BLOCK, FACTORS, SANDWICH, WHOLE, read_gguf
from anystep.language.engine.tokenizer import Subwords, begun
from anystep.language.engine.weights import build, read_folder
from anystep.language.fetch import keep
from models import text, tiny_model

TOKENS = ["<|end|>", "<|start|>", *"\u0120\u010aabcdefghijklmnopqrstuvwxyz0123456789.,:+-=", "th", "the", "\u0120the"]


def written(path, model, kind=gguf.GGMLQuantizationType.F32, architecture="llama", pre="smollm", more=lambda w: None):
    """`model` as llama.cpp would convert it: for llama queries and keys interleaved, matrices stored as `kind`; `more`
    adds fields and tensors."""
    c, words = model.config, TOKENS + [f"<unused{i}>" for i in range(model.config.vocab - len(TOKENS))]
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_block_count(c.layers)
    writer.add_context_length(c.context)
    writer.add_embedding_length(c.dim)
    writer.add_feed_forward_length(c.hidden)
    writer.add_head_count(c.heads)
    writer.add_head_count_kv(c.kv_heads)
    writer.add_rope_freq_base(c.rope_theta)
    if architecture == "llama":
        writer.add_rope_dimension_count(c.head_dim)
    else:
        writer.add_key_length(c.head_dim)
        writer.add_value_length(c.head_dim)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(words)
    writer.add_token_types([3, 3] + [1] * (len(words) - 2))
    writer.add_token_merges(["t h", "th e", "\u0120 the"])
    writer.add_eos_token_id(0)
    more(writer)
    back = {v: k for k, v in (BLOCK | WHOLE | (SANDWICH if c.sandwich else {})).items()}
    for name, tensor in model.state_dict().items():
        *parts, last = name.split(".")
        short = back[parts[0]] if len(parts) == 1 else f"blk.{parts[1]}.{back['.'.join(parts[2:])]}"
        heads = {"attn_q": c.heads, "attn_k": c.kv_heads}.get(short.split(".")[-1])
        values = tensor.numpy()
        if heads and architecture == "llama":
            values = values.reshape(heads, 2, len(values) // heads // 2, -1).swapaxes(1, 2).reshape(values.shape)
        stored = kind if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(f"{short}.{last}", gguf.quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("tied", [True, False])
def test_a_float_file_gives_the_model_back(tmp_path, tied):
    model = tiny_model(tied=tied, rope_theta=1e5)
    weights = read_gguf(written(tmp_path / "m.gguf", model))
    assert replace(weights.config, norm_eps=model.config.norm_eps) == model.config
    assert weights.config.norm_eps == pytest.approx(model.config.norm_eps)  # the file holds it in 32 bits
    tokens = torch.tensor([text(20)])
    again = Engine(build(weights), weights.tokenizer).forward(tokens)
    assert (again - model.logits(model(tokens))).abs().max() < 1e-5


def licence(folder):
    (folder / "TERMS.html").write_text("terms")
    return folder / "TERMS.html"


FACTORED = tuple(float(2 ** (i // 2)) for i in range(4))
GEMMA = {
    "layers": 7,
    "qk_norm": True,
    "sandwich": True,
    "gate": "gelu",
    "embed_scale": 32**0.5,
    "near_theta": 1e4,
    "windows": (5, 5, 5, 5, 5, None, 5),
}
OTHERS = {
    "qwen2": ("qwen2", {"qkv_bias": True, "tied": False}, lambda w: None),
    "qwen3": ("qwen3", {"qk_norm": True, "head_dim": 16}, lambda w: None),
    "qwen3, scaled": (
        "qwen3",
        {"qk_norm": True, "rope_factors": (4.0,) * 4},
        lambda w: (w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR), w.add_rope_scaling_factor(4.0)),
    ),
    "gemma3": ("gemma3", GEMMA, lambda w: w.add_sliding_window(5)),
    "gemma3, the largest": (
        "gemma3",
        GEMMA | {"layers": 62, "windows": (*(5, 5, 5, 5, 5, None) * 10, 5, 5), "head_dim": 16, "query_scale": 2**0.5},
        lambda w: w.add_sliding_window(5),
    ),
    "llama 3": (
        "llama",
        {"rope_factors": FACTORED},
        lambda w: w.add_tensor(FACTORS, np.array(FACTORED, np.float32)),
    ),
    "llama with biases": ("llama", {"qkv_bias": True}, lambda w: None),
    "llama with a window": ("llama", {"windows": (9, 9)}, lambda w: w.add_sliding_window(9)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_architectures_come_back(tmp_path, name):
    architecture, changes, more = OTHERS[name]
    model = tiny_model(**changes)
    for part, parameter in model.named_parameters():
        if "norm" in part:
            parameter.normal_(1.0, 0.1)
    weights = read_gguf(written(tmp_path / "m.gguf", model, architecture=architecture, pre="qwen2", more=more))
    assert replace(weights.config, norm_eps=model.config.norm_eps) == model.config
    tokens = torch.tensor([text(20)])
    again = Engine(build(weights), weights.tokenizer).forward(tokens)
    assert (again - model.logits(model(tokens))).abs().max() < 1e-4
    if name != "llama 3":  # as a directory it is the same model; one factor a frequency has no place in config.json
        same = read_folder(keep(weights, licence(tmp_path), tmp_path / "kept"))
        assert same.config == weights.config
        assert (Engine(build(same), same.tokenizer).forward(tokens) - again).abs().max() < 1e-4


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("prefix", [True, False])
def test_pieces_with_scores_are_read(tmp_path, prefix, begins):
    """The best-scored union first, whatever stands left of it; user-defined pieces before all; bytes for the rest."""
    words = ["<s>", "</s>", "<unk>", "▁", *"abcdn", "an", "ban", "▁b", "and", "nd", "  ", "<x>"]
    scores = [0.0, 0.0, 0.0, -20.0, *[-20.0] * 5, -3.0, -9.0, -4.0, -1.0, -2.0, -1000.0, -1000.0]
    kinds = [3, 3, 2, *[1] * 11, 4, 4]
    count = len(words)
    words += [f"<0x{b:02X}>" for b in range(256)]

    def more(writer):
        writer.kv_data[0] = {k: v for k, v in writer.kv_data[0].items() if not k.startswith("tokenizer.")}
        writer.add_tokenizer_model("llama")
        writer.add_token_list(words)
        writer.add_token_scores(scores + [0.0] * 256)
        writer.add_token_types(kinds + [6] * 256)
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
        writer.add_add_space_prefix(prefix)
        if not begins:
            writer.add_add_bos_token(False)

    model = tiny_model(vocab=count + 256)
    weights = read_gguf(written(tmp_path / "m.gguf", model, more=more))
    tokenizer = weights.tokenizer
    read = [words[i] for i in tokenizer.encode("band")]
    assert read == (["▁b", "and"] if prefix else ["b", "and"])  # "nd", then "and": "ban" scores less
    line = "ban  da é" if prefix else "ban  d<x>a é"  # as in llama.cpp, a space is put after <x> too
    assert tokenizer.decode(tokenizer.encode(line)) == line
    assert [words[i] for i in tokenizer.encode("aé")][-2:] == ["<0xC3>", "<0xA9>"]
    assert tokenizer.ends == {1} and tokenizer.begin == ((0,) if begins else ())
    first = (0,) if begins else ()
    assert begun(tokenizer, "band") == begun(tokenizer, "<s>band" if begins else "band")
    assert begun(tokenizer, "band")[:1] == first or not begins
    kept = keep(weights, licence(tmp_path), tmp_path / "kept")
    assert (kept / "LICENSE.html").read_text() == "terms"
    same = Subwords.from_folder(kept)
    assert same.begin == tokenizer.begin and same.encode("band  <x>") == tokenizer.encode("band  <x>")
    theirs = pytest.importorskip("transformers").PreTrainedTokenizerFast.from_pretrained(kept)
    assert theirs("band")["input_ids"] == list(begun(tokenizer, "band"))


@pytest.mark.parametrize(
    "architecture, changes, more, line",
    [
        ("llama", {}, lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.YARN), "yarn"),
        ("gemma3", {}, lambda w: w.add_final_logit_softcapping(30.0), "soft cap"),
        ("gemma3", {}, lambda w: w.add_array("gemma3.attention.sliding_window_pattern", [True, False]), "a list"),
        ("qwen2", {}, lambda w: w.add_rope_dimension_count(4), "differ in length"),
        ("qwen2", {}, lambda w: w.add_sliding_window(9), "in which layers"),
        (
            "llama",
            {"qk_norm": True},
            lambda w: w.add_tensor("blk.0.ffn_gate_inp.weight", np.ones((4, 4), "f")),
            "plain llama",
        ),
    ],
)
def test_what_is_not_done_is_refused_by_its_name(tmp_path, architecture, changes, more, line):
    with pytest.raises(ModelError, match=line) as error:
        read_gguf(written(tmp_path / "m.gguf", tiny_model(**changes), architecture=architecture, more=more))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind, error", [("Q4_1", 0.08), ("Q8_0", 0.005), ("F16", 0.0005), ("BF16", 0.005)])
def test_quantised_files_are_dequantised(tmp_path, kind, error):
    model = tiny_model(hidden=64)
    weights = read_gguf(written(tmp_path / "m.gguf", model, gguf.GGMLQuantizationType[kind]))
    for name, tensor in model.state_dict().items():
        assert (weights.tensors[name] - tensor).abs().max() <= error * tensor.abs().max(), name


def test_a_truncated_or_corrupt_file_is_one_line(tmp_path):
    whole = written(tmp_path / "m.gguf", tiny_model()).read_bytes()
    bad = tmp_path / "bad.gguf"
    rng = np.random.default_rng(0)
    for length in [0, 3, 4, 10, 100, 1000, *rng.integers(0, len(whole) - 1, 12).tolist()]:
        bad.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="gguf") as error:
            read_gguf(bad)
        assert "\n" not in str(error.value)
    for content in (b"PK\x03\x04" + whole[4:], whole[:4] + b"\xff" * 60 + whole[64:]):
        bad.write_bytes(content)
        with pytest.raises(ModelError, match="gguf") as error:
            read_gguf(bad)
        assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match="no file"):
        read_gguf(tmp_path / "absent.gguf")


def test_wrong_bytes_in_the_header_are_one_line_or_harmless(tmp_path):
    """Bad text, merges that name no token, ids outside the vocabulary, shapes that do not divide."""
    whole, bad, refused = written(tmp_path / "m.gguf", tiny_model()).read_bytes(), tmp_path / "bad.gguf", 0
    rng = np.random.default_rng(1)
    for _ in range(150):
        content = bytearray(whole)
        content[rng.integers(0, 1800)] = rng.integers(0, 256)
        content[rng.integers(0, 4000)] = 255
        bad.write_bytes(content)
        try:
            read_gguf(bad)
        except ModelError as error:
            refused += "\n" not in str(error)
    assert refused > 50


def test_other_architectures_and_unknown_splitters_are_refused(tmp_path):
    with pytest.raises(ModelError, match="'gemma'"):
        read_gguf(written(tmp_path / "g.gguf", tiny_model(), architecture="gemma"))
    with pytest.raises(ModelError, match="'strange'"):
        read_gguf(written(tmp_path / "s.gguf", tiny_model(), pre="strange"))
