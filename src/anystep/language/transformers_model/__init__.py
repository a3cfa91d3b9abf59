"""How does a model of Hugging Face transformers become an engine? `from_transformers(model, tokenizer)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anystep.errors import ModelError, UsageError
from anystep.language.engine.engine import Engine
from anystep.language.transformers_model.adapted import Adapted, TransformersEngine, check, context_of
from anystep.language.transformers_model.tokenizer import Adopted
from anystep.language.transformers_model.whole import Whole, WholeEngine

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["from_transformers"]

ADVICE = "from_transformers(..., whole=True) runs it slowly: each token computes its whole sequence."


def from_transformers(
    model: PreTrainedModel,
    tokenizer: Any,
    name: str | None = None,
    cache_bytes: int = 1 << 30,
    whole: bool = False,
) -> Engine:
    """An engine of a transformers model and its tokenizer, for `LanguageProcess`, `solve` and all that takes an engine.

    model: any causal language model that attends through transformers' attention functions, in evaluation mode from
    here on; it stays usable on its own while no engine call runs. name: for costs and keys, so two engines draw the
    same tokens only under one name; by default the model's own. cache_bytes: as in `load`. Attention is computed in
    fp32 and keys are cached so, whatever the model's type. whole: for a model that is refused without: nothing is cut
    or cached, each pass feeds whole sequences and is charged so (see `whole`).

    Preserves: the model's distribution, up to float rounding. Costs are the positions that are really fed to it.
    Raises UsageError for what is no such pair, ModelError for a model whose past is more than keys and values.
    """
    try:
        from transformers import PreTrainedModel
    except ImportError as error:
        raise UsageError("from_transformers needs transformers: pip install 'anystep[transformers]'.") from error
    if not isinstance(model, PreTrainedModel) or not callable(getattr(tokenizer, "encode", None)):
        raise UsageError(
            "from_transformers(AutoModelForCausalLM.from_pretrained(id), AutoTokenizer.from_pretrained(id)): got "
            f"{type(model).__name__} and {type(tokenizer).__name__}."
        )
    name = name or model.config.name_or_path or type(model).__name__
    known = Adopted(tokenizer, ends_of(model))
    try:
        if whole:
            context = context_of(model.config.get_text_config())
            return WholeEngine(Whole(model.eval(), context), known, name)
        adapted = Adapted(model.eval())
        engine = TransformersEngine(adapted, known, cache_bytes, name)
        check(engine, adapted)
    except ModelError as error:
        raise error if whole else ModelError(f"{error} {ADVICE}") from error
    except Exception as error:  # a model is a program, and may fail in any way where it is asked for something new
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        advice = "" if whole else ADVICE
        raise ModelError(f"{type(model).__name__} cannot be run by the engine ({reason}). {advice}".rstrip()) from error
    return engine


def ends_of(model: PreTrainedModel) -> frozenset[int]:
    """The tokens that end an answer: the generation config has the last word where there is one."""
    found = getattr(model.generation_config, "eos_token_id", None)
    found = getattr(model.config.get_text_config(), "eos_token_id", None) if found is None else found
    return frozenset([found] if isinstance(found, int) else found or ())
