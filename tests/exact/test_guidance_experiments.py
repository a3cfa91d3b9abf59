"""A cheap sample of the experiments on guidance: their exact clauses, at a small size."""

from __future__ import annotations

from anystep.experiments import diffier, one_more_step, ratio_aware_guidance


def test_the_ratio_s_exact_clauses_pass() -> None:
    assert all(check.passed for check in ratio_aware_guidance.closed_form(1))


def test_no_iterations_change_no_digit() -> None:
    assert diffier.zero(1).passed


def test_gaussian_samples_have_the_closed_form_s_moments() -> None:
    assert all(check.passed for check in one_more_step.gaussian(1, 200))
