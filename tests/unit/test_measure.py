"""What `anystep measure engine` counts: bytes and operations against shapes, weights against files, and its words."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from anystep import UsageError
from anystep.cli import main
from anystep.language.engine.engine import Engine
from anystep.language.engine.native import library
from anystep.language.engine.native.layers import NativeProduct, compiled
from anystep.language.engine.quantise import FORMS, quantise
from anystep.language.engine.tokenizer import Alphabet
from anystep.language.measure import Machine, Report, machine, measure_engine
from anystep.language.measure.memory import forget_peak, held, resident
from anystep.testing.operators import counted_operators
from models import SYMBOLS, chain_engine, text, tiny_engine, tiny_model

KNOWN = Machine(
    threads=1,
    bandwidth={1_000: 4e9, 1_000_000: 1e9},
    rates={"fp32": {1: 1e9, 8: 2e9}, "bf16": {1: 3e9, 8: 1e9}, "int8": {1: 4e9, 8: 8e9}},
)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def in_form(form: str, **changes: object) -> Engine:
    """A tiny model whose layers all fit every form."""
    shape = {"dim": 64, "heads": 8, "kv_heads": 2, "hidden": 64, **changes}
    return Engine(quantise(tiny_model(**shape), form), Alphabet(SYMBOLS), name="tiny")


PLAIN = [("fp32", 4), ("fp16", 2), ("bf16", 2)]  # int8 keeps a few columns beside its matrices


@pytest.mark.parametrize("form", [form for form, _ in PLAIN])
def test_operations_that_torch_ran_are_those_that_a_run_is_charged(form: str) -> None:
    engine = in_form(form)
    with engine.open(engine.plan([text(100)] * 3)) as session:
        session.append([3, 4, 5])
        with counted_operators() as seen:
            session.append([3, 4, 5])
            session.logits()
    costs, _ = engine.feed([102, 102, 102])
    assert seen.operations.total() == sum(cost.flops for cost in costs)


def test_operations_of_a_prefill_are_those_that_a_run_is_charged() -> None:
    engine = tiny_engine()
    plan = engine.plan([text(70)])
    with counted_operators() as seen:
        engine.open(plan).close()
    assert seen.operations.total() == sum(cost.flops for cost in engine.price(plan)[0])


@pytest.mark.parametrize(("form", "width"), PLAIN)
@pytest.mark.parametrize("tied", [True, False])
def test_a_step_reads_every_matrix_once_in_its_form(form: str, width: int, tied: bool) -> None:
    engine = in_form(form, tied=tied)
    c = engine.config
    report = measure_engine(engine, forks=(1, 3), prompt=40, new=4, machine=KNOWN)
    matrices = machine.packed4(c) * 8 // machine.Q4_1_BITS
    norms = (2 * c.layers + 1) * c.dim * 4
    for forks in report.forks:
        assert forks.read == matrices * width + norms + c.head_dim // 2 * 4  # rotary frequencies
    assert report.packed == report.forks[0].read


@pytest.mark.skipif(library() is None, reason="no C compiler, or a CPU without AVX-512 dot products")
def test_compiled_calls_tell_what_torch_does_not_see() -> None:
    shape = {"dim": 128, "heads": 8, "kv_heads": 2, "hidden": 128, "head_dim": 16, "scale": 0.1}
    engine = Engine(compiled(quantise(tiny_model(**shape), "int8")), Alphabet(SYMBOLS), name="tiny")
    forks = measure_engine(engine, forks=(3,), prompt=100, new=6, machine=KNOWN).forks[0]
    c = engine.config
    costs, _ = engine.feed([100 + 4] * 3)
    products = 2 * 3 * machine.packed4(c) * 8 // machine.Q4_1_BITS
    kept = sum(2 * 3 * m.kept.numel() for m in engine.model.modules() if isinstance(m, NativeProduct))
    assert kept > 0 and forks.operations["int8"] == products
    assert forks.operations["fp32"] - kept == sum(cost.flops for cost in costs) - products  # attention
    assert forks.keys == c.layers * 2 * c.kv_heads * c.head_dim * 4 * (100 + 3 * 4)
    inner = sum(m.bytes for m in engine.model.modules() if isinstance(m, NativeProduct))
    assert 0 < forks.read - inner < 2_000  # the last norm and the rotary frequencies


def test_keys_are_read_once_for_all_forks_and_apart_for_what_is_their_own() -> None:
    engine = tiny_engine()
    c = engine.config
    position = c.layers * 2 * c.kv_heads * c.head_dim * 4
    report = measure_engine(engine, forks=(4, 8), prompt=100, new=6, machine=KNOWN)
    for forks in report.forks:
        own = 1 + (6 // 2 - 1) + 1  # the step that is counted comes after these, and sees its own token too
        assert forks.keys == position * (100 + forks.rows * own)


@pytest.mark.parametrize("form", FORMS)
def test_weights_held_are_the_storages_of_the_model(form: str) -> None:
    model = quantise(tiny_model(dim=64, heads=8, hidden=64), form)
    c = model.config
    expected = sum(t.nbytes for t in {t.data_ptr(): t for t in [*model.parameters(), *model.buffers()]}.values())
    if form == "fp16":  # packed weights are no tensors
        expected += 2 * machine.packed4(c) * 8 // machine.Q4_1_BITS
    assert sum(held(model).values()) == expected


def test_cache_bytes_are_real_ones() -> None:
    engine = tiny_engine()
    report = measure_engine(engine, forks=(1, 16), prompt=200, new=32, machine=KNOWN)
    forks = report.forks[1]
    assert forks.shared == 200 * engine.bytes_per_position
    assert forks.own_tokens == 16 * 32 * engine.bytes_per_position
    assert forks.own == forks.own_tokens  # a row's first room is 32 positions: all of it is used
    assert forks.cache_ratio == 1


def test_every_step_is_timed_but_the_first_and_the_counted_one() -> None:
    engine = tiny_engine()
    before = engine.counters.passes
    report = measure_engine(engine, forks=(1, 2, 5), prompt=50, new=10, machine=KNOWN)
    assert [len(f.step.cpu) for f in report.forks] == [len(f.step.wall) for f in report.forks] == [8, 8, 8]
    assert engine.counters.passes - before == 3 + 1 + 3 * (1 + 10)  # prefills, a step for its bytes; then per fork
    assert len(report.prefill.cpu) == len(report.first.cpu) == 3
    assert all(f.operators > 50 for f in report.forks)


def test_the_limit_is_the_longer_of_its_two_terms() -> None:
    assert KNOWN.least(4_000, {"fp32": 1_000}, 1_000) == (1e-6, "bytes")
    assert KNOWN.least(4_000, {"fp32": 6_000, "bf16": 3_000}, 1_000) == (6_000 / 2e9 + 3_000 / 3e9, "products")
    assert KNOWN.least(1_000, {}, 900_000) == (1e-6, "bytes")  # a large working set is read more slowly
    assert KNOWN.peak("fp16") == 2e9 and KNOWN.peak("bf16") == 3e9 and KNOWN.fastest == 8e9
    narrow = Machine(1, {1: 1.0}, {"fp32": {1: 5.0}, "bf16": {1: 3.0}})
    assert narrow.peak("bf16") == 5.0  # bf16 may be widened, so it is no slower


def test_the_report_compares_with_cpu_time_on_one_thread_and_wall_time_on_more() -> None:
    report = measure_engine(tiny_engine(), forks=(2,), prompt=30, new=4, machine=KNOWN)
    forks = report.forks[0]
    assert forks.step.seconds(1) == sorted(forks.step.cpu)[0] / 2 + sorted(forks.step.cpu)[1] / 2
    assert forks.step.seconds(2) == sum(forks.step.wall) / 2
    assert forks.reached(1) == forks.limit / forks.step.seconds(1)
    weights = machine.packed4(tiny_engine().config)
    read = weights + forks.keys // 2
    assert forks.limit4 == max(read / KNOWN.reading(weights), sum(forks.operations.values()) / 8e9)


def test_the_machine_is_measured_at_the_models_shapes(one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LEAST", 1e-5)
    monkeypatch.setattr(machine, "SIZES", (1 << 16, 1 << 30))
    found = machine.measure_machine(tiny_model().config, 1 << 18, rows=(1, 4))
    assert found.threads == 1
    assert set(found.bandwidth) == {1 << 16, 1 << 18, machine.packed4(tiny_model().config)}
    assert {kind: set(rates) for kind, rates in found.rates.items()} == {k: {1, 4, 512} for k in machine.KINDS}
    assert all(rate > 0 for rates in (found.bandwidth, *found.rates.values()) for rate in rates.values())


def test_memory_is_what_the_system_says() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not say")
    assert forget_peak()
    before = resident()
    size = 64 << 20
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE) as block:  # an allocator might hand out pages that it kept
        for page in range(0, size, mmap.PAGESIZE):
            block[page] = 1
        after = resident()
    assert after["own"] - before["own"] > 0.9 * size
    assert resident()["peak"] > after["now"] - 0.1 * size  # kernels count in batches


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"forks": ()}, "forks=()"),
        ({"forks": (0,)}, "each 1 or more"),
        ({"new": 1}, "new is 2 or more"),
        ({"prompt": 0}, "a prompt has a token or more"),
        ({"prompt": 4096}, "try prompt=4079 or less"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_line(more: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        measure_engine(tiny_engine(), machine=KNOWN, **more)  # type: ignore[arg-type]
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command on ChainLM, on a machine that is known."""

    def measured(engine: Engine, *args: object, **more: object) -> Report:
        return measure_engine(chain_engine(), *args, machine=KNOWN, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("anystep.language.measure.measure_engine", measured)


ARGS = ["measure", "engine", "--model", "chainlm-2m", "--prompt", "60", "--new", "4", "--forks", "2,1"]


def test_the_command_prints_a_line_for_each_number_of_forks(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGS, "--threads", "1"]) == 0
    out, err = capsys.readouterr()
    assert "chainlm-2m, weights auto, 1 thread (--threads says so)" in out
    lines = [line.split() for line in out.splitlines()]
    assert [line[0] for line in lines if line and line[0] in ("1", "2")] == ["1", "2"]
    assert "prompt of 60 tokens\n" in err and "2 forks\n" in err


def test_the_command_as_json_holds_every_sample(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGS, "--json", "--quiet", "--weights", "fp32"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert [row["rows"] for row in found["forks"]] == [1, 2]
    assert all(len(row["step"]["cpu"]) == 2 and row["reached"] > 0 for row in found["forks"])
    assert found["model"] == "chainlm-2m" and found["weights"] == "fp32" and found["threads"]["why"]
    assert found["machine"]["bandwidth"] and found["packed"] <= found["held"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["measure", "it"], "'it'"),
        (["measure", "engine", "--forks", "1,x"], "--forks 1,8,32"),
        (["measure", "engine", "--forks", "0"], "--forks 1,8,32"),
        (["measure", "engine", "--forks", "99999"], "--forks 1,8,32"),
        (["measure", "engine", "--threads", "0"], "--threads 1"),
        (["measure", "engine", "--new", "100000"], "--new 16"),
        (["measure", "engine", "--weights", "int3", "--model", "chainlm-2m"], "weights='int3'"),
        (["measure", "engine", "--model", "http://127.0.0.1:1/v1"], "a server cannot be measured"),
        (["measure", "engine", "--model", "chainlm-2m"], "context of 160"),
    ],
)
def test_bad_input_is_one_line(args: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*args, "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and says in err, err
