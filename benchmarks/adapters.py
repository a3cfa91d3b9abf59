"""Which model types of transformers `from_transformers` runs, each tiny and random: `python benchmarks/adapters.py`.

Every type that transformers lists for causal language models is made with three layers 32 wide and a window of 7 where
it has one. It runs if forks of 9 and 14 tokens, decoded to 28, give the logits of the model's own pass.
"""

from __future__ import annotations

import inspect
import signal
import sys
import warnings
from typing import Any

import torch
from tokenizers import Tokenizer, models

from anystep.errors import ModelError
from anystep.language import from_transformers

SMALL = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 3),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "state_size"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 256),
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), None),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "n_shared_experts"), 1),
    **{"vocab_size": 64, "num_key_value_heads": 2, "sliding_window": 7, "query_pre_attn_scalar": 8},
    **{"num_experts_per_tok": 2, "expand": 2, "rotary_dim": 4},
}
PATIENCE = 150  # seconds for one type
LARGEST = 20_000_000  # parameters: a type that stays larger knows other names for its sizes


def tiny(kind: str) -> Any:
    """A random model of this type; any exception where it cannot be made so small."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    made = CONFIG_MAPPING[kind]
    fields = {*inspect.signature(made.__init__).parameters, *getattr(made, "__dataclass_fields__", ())}
    chosen = {key: value for key, value in SMALL.items() if key in fields | set(made.attribute_map)}
    if "kv_lora_rank" in chosen:  # keys of all heads are made of one
        chosen["num_key_value_heads"] = chosen["num_attention_heads"]
    try:
        config = made(**chosen)
    except Exception:  # some types want their own special tokens
        config = made(**{key: value for key, value in chosen.items() if not key.endswith("token_id")})
    with torch.device("meta"):
        if sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters()) > LARGEST:
            raise ValueError("stays large")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 0.2)
    return model


def apart(model: Any, tokenizer: Any, whole: bool) -> float:
    """Largest difference from the model's own logits, as a share of the largest of them."""
    engine = from_transformers(model, tokenizer, whole=whole)
    tokens, worst = tuple((7 * i + 3) % engine.config.vocab for i in range(28)), 0.0
    with torch.inference_mode():
        want = model(torch.tensor([tokens]), use_cache=False).logits[0]
    starts = (14, 14, 9)
    with engine.open(engine.plan([tokens[:start] for start in starts])) as session:
        for step in range(14):
            for start, logits in zip(starts, session.logits(), strict=True):
                worst = max(worst, float((logits - want[start + step - 1]).abs().max()))
            session.append([tokens[start + step] for start in starts])
    return worst / float(want.abs().max())


def main() -> None:
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KINDS

    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    rust = Tokenizer(models.WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=rust)

    def late(*_: Any) -> None:
        raise TimeoutError(f"took over {PATIENCE} s")

    signal.signal(signal.SIGALRM, late)
    counts = dict.fromkeys(("engine", "whole", "refused", "not made"), 0)
    for kind in sys.argv[1:] or KINDS:
        signal.alarm(PATIENCE)
        how, found = "not made", ""
        try:
            model = tiny(kind)
            how, found = "refused", ""
            try:
                how, found = "engine", f"{apart(model, tokenizer, whole=False):.1e}"
            except ModelError as error:
                why = str(error).partition("from_transformers(")[0]
                how, found = "whole", f"{apart(model, tokenizer, whole=True):.1e}, for {why}"
        except Exception as error:  # other people's models, made in sizes nobody meant
            found += f" {type(error).__name__}: {' '.join(str(error).split())[:120]}"
        signal.alarm(0)
        counts[how] += 1
        print(f"{how:9} {kind:24} {found}", flush=True)
    print(f"transformers {transformers.__version__}: {counts}")


if __name__ == "__main__":
    main()
