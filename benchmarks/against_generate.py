"""Our engine against `generate` of transformers, same weights: `python benchmarks/against_generate.py`.

Greedy decoding of one row, of eight different prompts, and of 8 and 32 forks of one prompt. transformers gets its best:
each dtype that is asked for, its fused attention, and for forks the prompt computed once, its cache copied to every row
(`batch_repeat_interleave`, as its documentation does it); plain `generate` would compute the prompt for each.
"""

from __future__ import annotations

from typing import Any

import paired
import torch

from anystep.language import load
from anystep.language.fetch import kept_folder
from anystep.language.loading import SMOLLM2

MODEL = "smollm2-135m"


def theirs(model: Any) -> paired.Side:
    """`generate`, for forks from one prompt's cache."""
    from transformers import DynamicCache, LogitsProcessorList

    @torch.inference_mode()
    def run(prompts: paired.Prompts, new: int) -> paired.Taken:
        clock = paired.Clock()

        def watch(tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            if len(clock.marks) == 1:
                clock.mark()
            return scores

        more: dict[str, Any] = {}
        clock.mark()
        if len(prompts) > 1 and len(set(prompts)) == 1:
            cache = DynamicCache(config=model.config)
            model(torch.tensor([prompts[0][:-1]]), past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.batch_repeat_interleave(len(prompts))
            more["past_key_values"] = cache
        tokens = torch.tensor(prompts)
        found = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=new,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            logits_processor=LogitsProcessorList([watch]),
            **more,
        )
        clock.mark()
        return clock.taken(found[:, tokens.shape[1] :].tolist())

    return run


def main() -> None:
    parser = paired.option_parser("Compare our engine with transformers' generate on SmolLM2-135M.")
    parser.add_argument("--dtypes", default="fp32,bf16", help="of transformers, with commas")
    options = parser.parse_args()
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(options.threads)
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    sides: dict[str, paired.Side] = {}
    for form in options.weights.split(","):
        engine = load(MODEL, weights=form)
        sides[f"anystep {form}"] = paired.ours(engine)
    folder = kept_folder(MODEL, SMOLLM2)
    for name in options.dtypes.split(","):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtypes[name]).eval()
        sides[f"transformers {name}"] = theirs(model)
    cases, tokens = paired.cases_of(options), paired.text_tokens(engine)
    for side in sides.values():  # the first call of each sets things up
        side([tuple(tokens[:8])], 3)
    found = paired.took(sides, cases, tokens, options.repeats)
    least = paired.limits(engine, cases)
    print(paired.table(found, least, list(sides), next(iter(sides)), options.new - 1))
    if options.json:
        options.json.write_text(
            paired.record(found, options, limits={str(c): s for c, s in least.items()}), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
