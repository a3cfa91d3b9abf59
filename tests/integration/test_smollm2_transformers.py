"""The real SmolLM2-135M through transformers: our own engine's tokens, near ties excepted, at the same cost."""

import numpy as np
import pytest
import torch

from anystep import keys
from anystep.language import LanguageProcess, from_transformers, load
from anystep.language.engine.sampling import distribution
from anystep.language.fetch import kept_folder
from anystep.language.loading import SMOLLM2
from anystep.ledger import Ledger, Limit
from anystep.testing import counted_torch

pytestmark = [pytest.mark.network, pytest.mark.slow]

PROMPTS = [
    "What is the capital of France?",
    "Write one line about the sea.",
    "A train leaves at nine and travels 60 miles an hour. How far has it gone by noon?",
]


@pytest.fixture(scope="module")
def engines():
    """Ours in fp32 and transformers' in fp32, under one name: keys are drawn by it."""
    transformers = pytest.importorskip("transformers")
    ours = load("smollm2-135m", weights="fp32")
    folder = kept_folder("smollm2-135m", SMOLLM2)
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    theirs = from_transformers(model, transformers.AutoTokenizer.from_pretrained(folder), name=ours.name)
    return ours, theirs


def run(engine, prompt, n, **options):
    """n completions under the same keys, and what they cost."""
    process = LanguageProcess(engine, prompt, unit="completion", max_tokens=24, **options)
    limit, some = Limit(Ledger(), "test"), keys.roots(5, (), np.arange(n))
    reply = process.step(process.start(some, limit).states, some, limit, "done")
    return reply.states, limit.used


def parted_in_a_tie(engine, one, other, u):
    """Whether the first token in which two rows differ lay within rounding of a choice of the other."""
    at = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    with engine.open(engine.plan([one[:at]])) as session:
        p = distribution(session.logits(), 0.8 if u else 1.0)[0]
    if not u:
        top = np.sort(p)[-2:]
        return float(np.log(top[1] / top[0])) < 1e-3
    edges = np.cumsum(p)
    return float(np.abs(edges - u(at)).min()) < 1e-4


@pytest.mark.parametrize("prompt", PROMPTS[:2])
def test_greedy_and_sampled_tokens_are_the_same(engines, prompt):
    ours, theirs = engines
    some = keys.roots(5, (), np.arange(4))
    for n, options in ((1, {"temperature": 0.0}), (4, {"temperature": 0.8})):
        (mine, cost), (other, price) = (run(e, prompt, n, **options) for e in (ours, theirs))
        equal = [a == b for a, b in zip(mine.tokens, other.tokens, strict=True)]
        for row in np.flatnonzero(~np.array(equal)):
            u = (lambda at, row=row: float(keys.uniforms(some[[row]], np.array([at], np.uint64))[0])) if n > 1 else None
            assert parted_in_a_tie(ours, mine.tokens[row], other.tokens[row], u)
        assert sum(equal) >= len(equal) - 1
        if all(equal):
            assert (cost.prompt, cost.cached, cost.generated) == (price.prompt, price.cached, price.generated)
            assert (cost.evaluations, cost.attended, cost.calls) == (price.evaluations, price.attended, price.calls)


def test_the_prompt_is_fed_once_and_what_is_paid_is_what_the_model_was_fed(engines):
    _, theirs = engines
    theirs.cache.trim(0)
    body = theirs.model.model.model
    with counted_torch(body, lambda _, named: named["input_ids"].numel()) as work:
        states, cost = run(theirs, PROMPTS[0], 8, temperature=0.8)
    assert (work.evaluations, work.calls) == (cost.evaluations, cost.calls)
    assert cost.prompt == states.starts[0]
    assert cost.evaluations == cost.prompt + sum(map(len, states.outputs())) - 8  # the last of each is not fed


def test_the_tokenizers_and_templates_agree(engines):
    ours, theirs = (engine.tokenizer for engine in engines)
    messages = [{"role": "user", "content": "What is 2 + 2?"}]
    assert ours.chat(messages) == theirs.chat(messages) and ours.ends == theirs.ends and ours.begin == theirs.begin
    for line in (
        *PROMPTS,
        "na\u00efve caf\u00e9 \U0001f600 \u65e5\u672c\u8a9e",
        "  12 + 345\n\n\tx",
        "<|im_start|>user",
    ):
        tokens = ours.encode(line)
        assert theirs.encode(line) == tokens and theirs.decode(tokens) == ours.decode(tokens)
        streams = [tokenizer.stream() for tokenizer in (ours, theirs)]
        assert len({"".join(stream.push(t) for t in tokens) for stream in streams}) == 1
