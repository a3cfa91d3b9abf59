"""Models of transformers as engines: laws of a process, costs by a hook on the model itself, and who is refused."""

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from tokenizers.decoders import Fuse

from anystep import search, solve
from anystep.errors import ModelError, Unsupported, UsageError
from anystep.language import LanguageProcess
from anystep.language.engine.engine import Engine
from anystep.language.transformers_model import from_transformers
from anystep.ledger import Ledger, Limit
from anystep.testing import counted_torch, process_checks
from models import SYMBOLS, text, tiny_engine, tiny_model

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

COMMON = {"vocab_size": 64, "bos_token_id": None, "eos_token_id": 3, "pad_token_id": None}
LLAMA = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
KINDS = {
    "GPT2": ("GPT2Config", "GPT2LMHeadModel", GPT2),
    "Llama": ("LlamaConfig", "LlamaForCausalLM", LLAMA),
    "Mistral": ("MistralConfig", "MistralForCausalLM", LLAMA | {"sliding_window": 5}),
    "Gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        LLAMA | {"head_dim": 8, "sliding_window": 5, "sliding_window_pattern": 2},
    ),
    "Phi": ("PhiConfig", "PhiForCausalLM", LLAMA | {"num_key_value_heads": 4}),
    "Cohere": ("CohereConfig", "CohereForCausalLM", LLAMA | {"logit_scale": 0.25}),
    "Granite": ("GraniteConfig", "GraniteForCausalLM", LLAMA | {"logits_scaling": 3.0, "attention_multiplier": 0.7}),
    "OPT": (
        "OPTConfig",
        "OPTForCausalLM",
        {
            "hidden_size": 32,
            "word_embed_proj_dim": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 48,
            "max_position_embeddings": 256,
        },
    ),
    "Mixtral": ("MixtralConfig", "MixtralForCausalLM", LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "DeepseekV3": (  # keys wider than values
        "DeepseekV3Config",
        "DeepseekV3ForCausalLM",
        LLAMA
        | {
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 16,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "moe_intermediate_size": 16,
        },
    ),
}


def theirs(config: str, model: str, options: dict, seed: int = 0):
    made = getattr(transformers, model)(getattr(transformers, config)(**COMMON | options)).requires_grad_(False)
    torch.manual_seed(seed)
    for parameter in made.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 0.2)
    return made.eval()


def characters():
    """One token a character, as the tiny engines have it, as a tokenizer of transformers."""
    words = {symbol: i for i, symbol in enumerate(SYMBOLS)}
    rust = Tokenizer(models.WordLevel(words, unk_token="?"))
    rust.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    rust.decoder = Fuse()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=rust)


@pytest.fixture(scope="module", params=KINDS)
def engine(request):
    return from_transformers(theirs(*KINDS[request.param]), characters(), name="tiny")


def test_forks_and_windows_give_the_models_own_logits(engine):
    model = engine.model.model
    shared = text(40, seed=9)
    prompts = [shared, shared, shared + text(5), text(17), text(2, 2)]
    with engine.open(engine.plan(prompts)) as session:
        for step in range(12):
            seen = session.logits()
            session.append([(7 * step + row) % 64 for row in range(len(prompts))])
        for row, tokens in enumerate(session.tokens):
            with torch.no_grad():
                want = model(torch.tensor([tokens]), use_cache=False).logits[0]
            assert (seen[row] - want[-2]).abs().max() < 1e-4
        assert engine.counters.copied_prompt_bytes < 40 * engine.bytes_per_position * 3  # what is short, not what forks
    tokens = torch.tensor([text(30)])
    with torch.no_grad():
        want = model(tokens, use_cache=False).logits
    assert (engine.forward(tokens) - want).abs().max() < 1e-4


PROCESSES = {
    "token of GPT2": ("GPT2", {"unit": "token", "max_tokens": 6}),
    "step of Llama": ("Llama", {"unit": "step", "stop": "a", "end": ("b",), "max_tokens": 8, "at_cap": "failed"}),
}


@pytest.fixture(scope="module", params=PROCESSES)
def process(request):
    kind, options = PROCESSES[request.param]
    return LanguageProcess(from_transformers(theirs(*KINDS[kind]), characters()), "Hello: 12+34=", **options)


@pytest.mark.parametrize("check", process_checks, ids=lambda check: check.__name__)
def test_it_is_a_process(process, check):
    """Work is counted on transformers' own body of the model: by what is fed to it, not by what we say."""
    if check.__name__ == "it_is_a_process":
        process.forget()
    adapted = process.engine.model
    check(
        process,
        lambda: counted_torch(getattr(adapted.model, adapted.part), lambda _, named: named["input_ids"].numel()),
    )


def test_the_same_weights_give_our_engines_tokens():
    """A tiny Llama through transformers and in our engine: greedy and sampled, forked, by steps; prompts paid once."""
    ours = tiny_engine(scale=0.15)
    c = ours.config
    config = transformers.LlamaConfig(
        **COMMON | LLAMA | {"max_position_embeddings": c.context, "head_dim": c.head_dim, "rms_norm_eps": c.norm_eps},
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    names = {f"model.{n}": t for n, t in tiny_model(scale=0.15).state_dict().items()}
    assert not model.load_state_dict(names, strict=False).unexpected_keys
    theirs = from_transformers(model, characters(), name=ours.name)  # keys are drawn by name
    theirs.tokenizer.ends = ours.tokenizer.ends
    for options in ({"temperature": 0.0, "max_tokens": 30}, {"unit": "step", "stop": "a", "max_tokens": 60}):
        answers, costs = [], []
        for engine in (ours, theirs):
            process = LanguageProcess(engine, "Hello: 12+34=", **options)
            answer = solve("", process, search.sample(n=1 if "temperature" in options else 8), seed=3)
            answers.append(answer.population.states.tokens)
            costs.append((answer.cost.prompt, answer.cost.generated, answer.cost.evaluations, answer.cost.calls))
            process.forget()
        assert answers[0] == answers[1] and costs[0] == costs[1] and costs[0][0] == 13


def test_what_was_evicted_is_computed_again_and_charged():
    roomy = from_transformers(theirs(*KINDS["GPT2"]), characters())
    tight = from_transformers(theirs(*KINDS["GPT2"]), characters(), cache_bytes=20_000)

    def run(engine, forget):
        process = LanguageProcess(engine, "Hello: 12+34=", unit="token", max_tokens=12)
        states, spent, keys = None, 0, np.arange(6, dtype=np.uint64)
        for turn in range(10):
            limit = Limit(Ledger(), "test")
            states = states or process.start(keys, limit).states
            states = process.step(states, keys + np.uint64(turn * 10), limit, "step").states
            spent += limit.used.prompt
            if forget:
                process.forget()
        return process.dump(states), spent, process.load(process.dump(states)) == states

    want, once, same = run(roomy, forget=False)
    again, more, _ = run(tight, forget=True)
    assert want == again and same and once == 13 and more > 10 * 13
    assert tight.cache.bytes <= 20_000


def test_solve_takes_the_engine_and_the_model_stays_usable():
    model = theirs(*KINDS["Llama"])
    own = model.config._attn_implementation
    tokens = torch.tensor([text(9)])
    before = model.generate(tokens, max_new_tokens=5, do_sample=False)
    engine = from_transformers(model, characters(), name="mine")
    answer = solve("1+1=", model=engine, method="greedy", max_tokens=7)
    assert answer.cost.generated == 7 and answer.cost.prompt == 4 and engine.name == "mine"
    assert model.config._attn_implementation == own
    assert torch.equal(model.generate(tokens, max_new_tokens=5, do_sample=False), before)


def test_half_precision_models_run_as_they_are():
    model = theirs(*KINDS["Llama"]).to(torch.bfloat16)
    engine = from_transformers(model, characters())
    tokens = text(30)
    with torch.no_grad():
        want = model(torch.tensor([tokens]), use_cache=False).logits[0, -1].float()
    with engine.open(engine.plan([tokens])) as session:
        assert session.logits().dtype == torch.float32
        assert (session.logits()[0] - want).abs().max() < 0.05 * want.abs().max()


def test_flops_are_two_a_weight_and_position():
    engine = from_transformers(theirs(*KINDS["Llama"]), characters())
    ours = Engine(tiny_model(), tiny_engine().tokenizer)
    assert engine.flops(3, 10, 2) == ours.flops(3, 10, 2)


REFUSED = {
    "Mamba": ("MambaConfig", "MambaForCausalLM", {"hidden_size": 32, "num_hidden_layers": 2}, r"0 of its 2 layers"),
    "Gemma2": ("Gemma2Config", "Gemma2ForCausalLM", LLAMA | {"head_dim": 8}, "soft cap on attention scores"),
    "GptOss": (
        "GptOssConfig",
        "GptOssForCausalLM",
        LLAMA | {"head_dim": 8, "num_local_experts": 4},
        "attention sinks",
    ),
    "Bloom": ("BloomConfig", "BloomForCausalLM", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, "0 of its 2 layers"),
    "Bert": ("BertConfig", "BertLMHeadModel", {k: v for k, v in LLAMA.items() if "value" not in k}, "other logits"),
    "Falcon": ("FalconConfig", "FalconForCausalLM", LLAMA, "FalconForCausalLM"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_models_with_another_memory_are_refused_by_name(kind):
    config, model, options, line = REFUSED[kind]
    options = options | {"pad_token_id": 0}
    with pytest.raises(ModelError, match=line) as error:
        from_transformers(theirs(config, model, options), characters())
    assert "\n" not in str(error.value) and kind in str(error.value) and "whole=True" in str(error.value)


def refused(kind):
    config, model, options, _ = REFUSED[kind]
    return theirs(config, model, options | {"pad_token_id": 0})


@pytest.mark.parametrize("check", process_checks, ids=lambda check: check.__name__)
def test_a_model_run_whole_is_a_process(check):
    """Every position that the model is fed is paid, also those it had been fed before."""
    engine = from_transformers(refused("Mamba"), characters(), whole=True)
    process = LanguageProcess(engine, "12+34=", unit="token", max_tokens=4)
    check(process, lambda: counted_torch(engine.model.model, lambda _, named: named["input_ids"].numel()))


@pytest.mark.parametrize("kind", [kind for kind in REFUSED if kind != "Bert"])
def test_whole_sequences_give_the_models_own_tokens(kind):
    model = refused(kind)
    engine = from_transformers(model, characters(), whole=True)
    prompts = [text(9), text(9), text(4, 2)]
    with engine.open(engine.plan(prompts)) as session:
        for step in range(5):
            for row, logits in enumerate(session.logits()):
                with torch.no_grad():
                    want = model(torch.tensor([session.tokens[row]]), use_cache=False).logits[0, -1]
                assert (logits - want).abs().max() < 1e-4
            session.append([5 + 3 * step + row for row in range(3)])
        session.drop([1])
        with pytest.raises(UsageError, match="a live row"):
            session.append([5], [1])
    assert engine.counters.positions == 9 + 9 + 4 + sum(10 + s + 10 + s + 5 + s for s in range(5))
    assert engine.counters.passes == 3 + 5 * 3
    tokens = torch.tensor([text(7)])
    with torch.no_grad():
        assert (engine.forward(tokens) - model(tokens, use_cache=False).logits).abs().max() < 1e-4
    with pytest.raises(Unsupported, match="no mask"):
        engine.forward(tokens, hidden=True)


def test_a_model_that_looks_ahead_continues_nothing():
    with pytest.raises(ModelError, match="BertLMHeadModel looks ahead") as error:
        from_transformers(refused("Bert"), characters(), whole=True)
    assert "whole=True" not in str(error.value)


def test_what_is_no_pair_of_model_and_tokenizer_is_refused():
    with pytest.raises(UsageError, match="from_transformers.AutoModelForCausalLM"):
        from_transformers(tiny_model(), characters())
    with pytest.raises(UsageError, match="from_transformers.AutoModelForCausalLM"):
        from_transformers(theirs(*KINDS["GPT2"]), None)


def test_the_tokenizer_streams_as_it_decodes_and_begins_as_it_says():
    words = {"<s>": 0, "</s>": 1, "<unk>": 2, **{f"<0x{b:02X}>": 3 + b for b in range(256)}, "\u2581": 259, "a": 260}
    rust = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>", byte_fallback=True))
    from tokenizers import decoders, normalizers, processors

    rust.normalizer = normalizers.Replace(" ", "\u2581")
    rust.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    rust.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    rust.add_special_tokens(["<s>", "</s>"])
    theirs_ = transformers.PreTrainedTokenizerFast(tokenizer_object=rust, bos_token="<s>", eos_token="</s>")
    from anystep.language.transformers_model.tokenizer import Adopted

    tokenizer = Adopted(theirs_, frozenset())
    assert tokenizer.begin == (0,) and tokenizer.ends == {1} and tokenizer.size == 261
    for line in ("a caf\u00e9 a", "\u65e5\u672c a", "\U0001f600"):
        tokens, stream = tokenizer.encode(line), tokenizer.stream()
        pieces = [stream.push(token) for token in tokens]
        assert "".join(pieces) == tokenizer.decode(tokens) == line and "\ufffd" not in "".join(pieces)
        assert b"".join(tokenizer.spelled(token) for token in tokens).decode() == line
    assert tokenizer.spelled(0) is None and tokenizer.written(260) == "a"
    with pytest.raises(Unsupported, match="no chat template"):
        tokenizer.chat([{"role": "user", "content": "a"}])
    theirs_.chat_template = "{{ bos_token }}{{ messages[0]['content'] }}"
    again = Adopted(theirs_, frozenset({5}))
    assert again.chat([{"role": "user", "content": "a"}]) == "<s>a" and again.ends == {5}
    theirs_.chat_template = "{{ raise_exception('no such\nrole') }}"
    with pytest.raises(UsageError, match="no such role"):
        Adopted(theirs_, frozenset()).chat([{"role": "judge", "content": "a"}])
