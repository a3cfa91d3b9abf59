"""The real SmolLM2-135M: against transformers on the same weights, and its tokenizer against known tokens."""

import pytest
import torch

from anystep.language import load
from anystep.language.fetch import kept_folder
from anystep.language.loading import SMOLLM2

pytestmark = [pytest.mark.network, pytest.mark.slow]

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
LINES = [
    "The quick brown fox",
    "12 + 345 = 357",
    "naïve café 😀 日本語",
    "don't  stop\n\n\tnow\r\n",
    "<|im_start|>user\nhi<|im_end|>",
    " leading, trailing ",
    "x" * 50 + "１２３",
]


@pytest.fixture(scope="module")
def engine():
    return load("smollm2-135m", weights="fp32")


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


def test_it_answers(engine):
    tokenizer = engine.tokenizer
    out = []
    with engine.open(engine.plan([tokenizer.encode(tokenizer.chat(QUESTION))])) as session:
        while not out or out[-1] not in tokenizer.ends:
            out.append(int(session.logits().argmax()))
            session.append(out[-1:])
    assert tokenizer.decode(out) == "The capital of France is Paris."


def test_logits_equal_those_of_transformers(engine, transformers):
    """On the dequantised weights, in fp32: one pass, chunked prefill, decoding, and forked rows."""
    theirs = transformers.LlamaForCausalLM.from_pretrained(kept_folder("smollm2-135m", SMOLLM2), dtype=torch.float32)
    tokenizer = engine.tokenizer
    tokens = tokenizer.encode(tokenizer.chat(QUESTION) + "The capital of France is Paris, which lies on the Seine.")
    with torch.no_grad():
        want = theirs(torch.tensor([tokens])).logits[0]
    assert (engine.forward(torch.tensor([tokens]))[0] - want).abs().max() < 1e-4
    engine.open(engine.plan([tokens[:20]])).close()
    with engine.open(engine.plan([tokens[:37]] * 3 + [tokens[:25]])) as session:
        for step in range(10):
            logits = session.logits()
            for row, start in enumerate((37, 37, 37, 25)):
                assert (logits[row] - want[start + step - 1]).abs().max() < 1e-4, (row, step)
            session.append([tokens[start + step] for start in (37, 37, 37, 25)])


def test_fp16_weights_choose_the_same_tokens(engine):
    """Mean KL below 1e-5 and the same most likely token on text, near ties excepted."""
    half = load("smollm2-135m", weights="fp16")
    text = "A train leaves at nine and travels 60 miles an hour. How far has it gone by noon? It has gone 180 miles."
    tokens = torch.tensor([engine.tokenizer.encode(text)])
    p, q = (e.forward(tokens).log_softmax(-1)[0] for e in (engine, half))
    assert float((p.exp() * (p - q)).sum(-1).mean()) < 1e-5
    top = p.topk(2).values
    clear = top[:, 0] - top[:, 1] > 1e-2
    assert torch.equal(p.argmax(-1)[clear], q.argmax(-1)[clear]) and clear.float().mean() > 0.9


def test_the_tokenizer_is_that_of_transformers(engine, transformers):
    folder = kept_folder("smollm2-135m", SMOLLM2)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for line in LINES:
        assert engine.tokenizer.encode(line) == theirs(line, add_special_tokens=False)["input_ids"], line
    assert engine.tokenizer.chat(QUESTION) == theirs.apply_chat_template(
        QUESTION, tokenize=False, add_generation_prompt=True
    )


def test_tokens_are_the_published_ones(engine):
    """Tokens of the model's published tokenizer for these lines."""
    encode = engine.tokenizer.encode
    assert encode("<|im_start|>user\n") == [1, 4093, 198]
    assert encode("What is the capital of France?") == [1780, 314, 260, 3575, 282, 4649, 47]
    digits = encode("2024")
    assert len(digits) == 4 and engine.tokenizer.decode(digits) == "2024"
    for line in LINES[:4]:
        assert engine.tokenizer.decode(encode(line)) == line
