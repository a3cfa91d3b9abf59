"""String diagrams: equal by the laws alone, interpreted functorially, and effects against whole models and programs."""

from __future__ import annotations

from fractions import Fraction as F

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anystep import UsageError
from anystep.bayes import StringDiagram, measure, normalised
from anystep.bayes.causal import (
    NotIdentifiable,
    as_program,
    box,
    causal_graph,
    comb_disintegration,
    copy,
    cut,
    discard,
    identify,
    identity,
    interpret,
    intervene,
    swap,
    uniform,
)
from anystep.experiments._diagrams import (
    SMOKING,
    WIRES,
    determined,
    generators,
    random_channels,
    random_term,
    small_graphs,
    smoking,
)
from anystep.experiments.string_diagram_surgery import (
    QUERIES,
    bows,
    in_context,
    random_models,
    torn_comb,
    worked,
)

f, g, h = box("f", ["a"], ["b"]), box("g", ["b"], ["c", "a"]), box("h", ["c", "a"], ["a"])
NAPKIN = {"U": (), "V": (), "W": ("U", "V"), "R": ("W",), "X": ("R", "U"), "Y": ("X", "V")}


def seeds() -> st.SearchStrategy[np.random.Generator]:
    return st.integers(0, 2**32 - 1).map(lambda seed: np.random.Generator(np.random.Philox(seed)))


def test_the_laws_hold_on_the_nose() -> None:
    x = copy("a")
    assert x >> x @ identity("a") == x >> identity("a") @ x
    assert x >> discard("a") @ identity("a") == identity("a") == x >> identity("a") @ discard("a")
    assert x >> swap("a", "a") == x
    assert swap("a", "b") >> swap("b", "a") == identity("a", "b")
    assert f @ identity("c") >> swap("b", "c") == swap("a", "c") >> identity("c") @ f
    assert (f >> g) @ (g >> h) == f @ g >> g @ h
    assert f >> g >> discard("c") @ discard("a") == discard("a")
    assert uniform("a") >> discard("a") == identity()


def test_copying_what_a_box_gave_is_not_running_it_twice() -> None:
    assert f >> copy("b") != copy("a") >> f @ f
    assert f != box("f2", ["a"], ["b"])


@settings(max_examples=60, deadline=None)
@given(seeds())
def test_composing_and_interpreting_commute(rng: np.random.Generator) -> None:
    pieces, tables = generators(rng)
    diagram, matrix = random_term(pieces, rng)
    assert np.abs(interpret(diagram, tables, WIRES).reshape(matrix.shape) - matrix).max() < 1e-12


@settings(max_examples=60, deadline=None)
@given(seeds())
def test_surgery_is_a_functor(rng: np.random.Generator) -> None:
    pieces, _ = generators(rng)
    few = [(piece, np.eye(1)) for piece, _ in pieces if all(len(box.cod) < 2 for box, _ in piece.nodes)]
    layers = [p[0] for p in few]
    first, second = (layers[rng.integers(len(layers))] for _ in range(2))
    beside = first @ second
    assert cut(beside, "a") == cut(first, "a") @ cut(second, "a")
    for after in layers:
        if after.dom == first.cod:
            assert cut(first >> after, "a") == cut(first, "a") >> cut(after, "a")


def test_surgery_by_hand() -> None:
    whole = StringDiagram.of_graph(SMOKING)
    parents = causal_graph(cut(whole, "S"))
    assert parents == {**SMOKING, "S": ()}
    assert causal_graph(cut(smoking().observing("TC"), "T")) == {"H": (), "T": (), "C": ("H", "T")}


def test_the_worked_example_is_exact_and_conditioning_has_the_other_sign() -> None:
    apart, seen, done = worked()
    assert apart == 0 and seen < -0.1 < 0.1 < done


def test_effects_from_the_joint_are_the_whole_model_s() -> None:
    errors, conditioned = random_models(seed=5, count=20)
    assert errors.max() < 1e-10 < conditioned.min()
    assert in_context(seed=5, count=10).max() < 1e-10


def test_an_effect_within_a_comb_and_of_two_actions() -> None:
    rng = np.random.Generator(np.random.Philox(2))
    tables = random_channels(NAPKIN, {"U": 3, "V": 2, "W": 3, "R": 2, "X": 4, "Y": 3}, rng)
    diagram = StringDiagram.of_graph(NAPKIN, hidden="UV")
    joint = interpret(diagram, tables)
    for do, of, seen in (
        ("X", "Y", ""),
        ("RX", "Y", ""),
        ("R", "YX", ""),
        ("R", "Y", "X"),
        ("", "Y", "W"),
    ):
        effect = identify(diagram, list(do), list(of), list(seen))(joint)
        truth = intervene(diagram, tables, list(do), list(of), list(seen))
        assert effect.shape == truth.shape and np.abs(effect - truth).max() < 1e-10, (do, of, seen)
    assert determined(NAPKIN, ("U", "V"), "X", "Y", (), seed=0)
    assert not determined(NAPKIN, ("U", "V"), "X", "Y", ("R",), seed=0)
    with pytest.raises(NotIdentifiable, match="W, X, Y"):
        identify(diagram, "X", "Y", "R")


def test_hidden_variables_may_have_causes() -> None:
    graph = {"A": (), "H": ("A",), "B": ("H",), "C": ("H", "B")}
    rng = np.random.Generator(np.random.Philox(3))
    tables = random_channels(graph, {"A": 2, "H": 4, "B": 3, "C": 2}, rng)
    diagram = StringDiagram.of_graph(graph, hidden="H")
    assert (
        np.abs(identify(diagram, "A", "C")(interpret(diagram, tables)) - intervene(diagram, tables, "A", "C")).max()
        < 1e-12
    )
    with pytest.raises(NotIdentifiable, match=r"P\(C\|do\(B\)\).*\{B, C\}"):
        identify(diagram, "B", "C")


def test_verdicts_agree_with_a_rank_of_derivatives() -> None:
    assert bows() == 0
    for k, (graph, hidden) in enumerate(small_graphs()):
        if k % 6 == 1:
            do, of, seen = QUERIES[k // 6 % len(QUERIES)]
            try:
                identify(StringDiagram.of_graph(graph, hidden), do, of, seen)
                verdict = True
            except NotIdentifiable:
                verdict = False
            assert verdict == determined(graph, hidden, do, of, seen, seed=k), (graph, do, of, seen)


def test_combs_multiply_to_the_joint_and_give_out_in_order() -> None:
    rng = np.random.Generator(np.random.Philox(4))
    joint = rng.dirichlet(np.ones(24)).reshape(2, 3, 4)
    outer, inner = comb_disintegration(joint, "ABC", ["AC", "B"])
    assert np.abs(outer * inner - joint).max() < 1e-15
    first = outer.sum(2)  # its last output discarded, what went in before it no longer matters
    assert np.abs(first - joint.sum((1, 2))[:, None]).max() < 1e-15
    assert np.abs(first.sum(0) - 1).max() < 1e-15 and inner.shape == (2, 3, 1)
    assert torn_comb(0) > 1e-4


def test_a_program_of_a_diagram_means_what_the_diagram_means() -> None:
    tables = {"A": np.array([F(1, 3), F(2, 3)]), "B": np.array([[F(1, 4), F(3, 4)], [F(4, 5), F(1, 5)]])}
    diagram = StringDiagram.of_graph({"A": [], "B": ["A"]})
    table = interpret(diagram, tables)
    assert measure(as_program(diagram, tables)) == {(a, b): table[a, b] for a in (0, 1) for b in (0, 1)}
    assert normalised(measure(as_program(diagram, tables, {"A": 1})))[(1, 0)] == F(4, 5)
    assert interpret(uniform("A") >> box("B", ["A"], ["B"]), tables)[0] == (F(1, 4) + F(4, 5)) / 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: f >> f, r"f gives \('b',\), g takes \('a',\)"),
        (lambda: StringDiagram.of_graph({"A": ["B"], "B": ["A"]}), "cycle"),
        (lambda: StringDiagram.of_graph({"A": ["B"]}), "every variable has its line"),
        (lambda: interpret(f, {}), "no table for"),
        (lambda: interpret(f >> g, {"f": np.ones((2, 3)) / 3, "g": np.ones((2, 2, 2)) / 4}), "one axis each for b: 3"),
        (lambda: interpret(f, {"f": np.ones((2, 3))}), "is no channel"),
        (lambda: interpret(f, {"f": [[1.5, -0.5]]}), "is no channel"),
        (lambda: interpret(identity("q"), {}), "How many values"),
        (lambda: cut(f >> g, "a"), "split it into boxes"),
        (lambda: smoking().observing(["Q"]), "observing"),
        (lambda: identify(smoking(), "H", "C"), "different observed names, of S, T, C"),
        (lambda: identify(smoking(), "S", "S"), "different observed names"),
        (lambda: identify(f, "a", "b"), "A causal model has no inputs"),
        (lambda: identify(smoking(), "S", "C")(np.ones((2, 2)) / 4), "one each for S, T, C"),
        (lambda: identify(smoking(), "S", "C")(np.eye(2).reshape(2, 2, 1) / 2), "mass 0"),
        (lambda: comb_disintegration(np.ones((2, 2)) / 4, "AB", ["A"]), "an axis and a part each"),
        (lambda: comb_disintegration(np.ones((2, 2)) / 4, "AB", ["A", "B"], {frozenset("AB")}), "share a hidden cause"),
    ],
)
def test_errors_say_what_was_meant(call, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call()
