"""``shortcuts`` knows which singular values a product of two sliced orthogonal bases must have."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.checks._sliced import shortcut_matrices
from rotcheck.checks.shortcuts import shortcuts
from rotcheck.outcome import Outcome
from rotcheck.slicing import Schedule, random_plan, rotate_and_slice
from rotcheck.subjects.sliced import SlicedModel

NULL = "condition number of random subspaces, median"


def first_shortcut(subject):
    _, name, _ = shortcut_matrices(subject)[0]
    return name, subject.model.get_parameter(name)


def test_silent_on_right_models(right_sliced, judge, passes):
    if len(right_sliced.plan.bases) > 1:
        passes("shortcuts", right_sliced)
    else:
        verdict = judge("shortcuts", right_sliced)
        assert verdict.outcome is Outcome.NOT_APPLICABLE
        assert "does not supply a shortcut: all sites share one basis" in verdict.headline


def test_silent_in_bfloat16(coarse_sliced, passes):
    passes("shortcuts", coarse_sliced)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31), widths=st.lists(st.integers(1, 40), min_size=7, max_size=7))
def test_silent_for_any_widths(seed, widths, build, passes):
    original = build.pair(seed=1).before
    plan = random_plan(40, 3, "per-layer", Schedule.explicit(widths), seed=seed)
    passes("shortcuts", SlicedModel(rotate_and_slice(original, plan), inputs=torch.ones(1, 4).long()))


def test_matrices_and_their_sites(build):
    subject = build.sliced(layers=5, grouping="k-block:2", change="mlp")
    found = shortcut_matrices(subject)
    assert [site for site, _, _ in found] == [3, 7]
    assert [name for _, name, _ in found] == [
        "model.decoder.layers.1.feed_forward_shortcut", "model.decoder.layers.3.feed_forward_shortcut"
    ]  # fmt: skip
    for site, _, matrix in found:
        expected = subject.plan.sliced_basis(site).T @ subject.plan.sliced_basis(site + 1)
        assert torch.equal(matrix, expected)


def test_zeros_are_named(build, fails):
    subject = build.sliced()
    name, matrix = first_shortcut(subject)
    matrix.data.zero_()
    verdict = fails("shortcuts", subject)
    assert verdict.matched == "zeros"
    assert verdict.place == name == "model.decoder.layers.2.attention_shortcut"
    assert verdict.claim.error == pytest.approx(1.0)


@pytest.mark.parametrize(("factor", "error"), [(1.5, 0.5), (1 + 1e-6, 1e-6), (0.9, 0.1), (-1.0, 0.0)])
def test_a_scale_is_measured(factor, error, build, judge):
    subject = build.sliced()
    first_shortcut(subject)[1].data.mul_(factor)
    verdict = judge("shortcuts", subject)
    assert verdict.claim.error == pytest.approx(error, abs=1e-13)
    assert verdict.outcome is (Outcome.FAILED if error else Outcome.PASSED)


def test_a_value_above_one_fails_where_none_has_to_be_one(build, fails):
    subject = build.sliced(schedule=Schedule.constant(0.5, round_to=2))
    matrix = first_shortcut(subject)[1]
    matrix.data.mul_(1.25 / torch.linalg.matrix_norm(matrix.data, 2))
    assert fails("shortcuts", subject).claim.error == pytest.approx(0.25)


def test_a_random_matrix_and_a_covariance_fail(build, fails):
    subject = build.sliced()
    _, matrix = first_shortcut(subject)
    right = matrix.data.clone()
    matrix.data = torch.randn(matrix.shape, dtype=matrix.dtype, generator=torch.Generator().manual_seed(0))
    fails("shortcuts", subject)
    matrix.data = right @ torch.diag(torch.linspace(1.2, 0.8, right.shape[1], dtype=right.dtype))
    fails("shortcuts", subject)


def test_coarser_multiplication_fails(build, fails):
    subject = build.sliced()
    _, matrix = first_shortcut(subject)
    matrix.data = matrix.data.float().double()
    assert 1e-9 < fails("shortcuts", subject).claim.error < 1e-6


def test_a_transposed_shortcut_is_out_of_sight(build, passes, fails):
    subject = build.sliced()
    _, matrix = first_shortcut(subject)
    matrix.data = matrix.data.T.contiguous()
    passes("shortcuts", subject)
    fails("tensor_bases", subject)


def test_zeros_between_small_subspaces_are_out_of_sight(build, passes, fails):
    subject = build.sliced(schedule=Schedule.constant(0.5, round_to=2))
    first_shortcut(subject)[1].data.zero_()
    assert passes("shortcuts", subject).rivals == ()
    assert "zeros where ``w + v <= d``" in " ".join(shortcuts.documentation.split())
    fails("tensor_bases", subject)


def test_entries_that_are_not_finite_fail(build, fails):
    subject = build.sliced()
    name, matrix = first_shortcut(subject)
    matrix.data[0, 0] = float("inf")
    verdict = fails("shortcuts", subject)
    assert verdict.headline == f"subject has entries that are not finite in {name}"


def test_the_condition_number_stands_beside_its_null(build, passes):
    facts = dict(passes("shortcuts", build.sliced()).facts)
    values = torch.linalg.svdvals(shortcut_matrices(build.sliced())[0][2])
    assert facts["condition number"] == pytest.approx((values[0] / values[-1]).item())
    assert facts["5 %"] <= facts[NULL] <= facts["95 %"]
    angle = torch.rad2deg(torch.acos(values[-1].clamp(max=1))).item()
    assert facts["worst principal angle in degrees"] == pytest.approx(angle)


def test_energy_needs_plan_and_calibration(build, passes):
    subject = build.sliced()
    assert 0.5 < dict(passes("shortcuts", subject).facts)["energy that passes"] <= 1
    for lost in ({"plan": None}, {"calibration": None}):
        assert "energy that passes" not in dict(passes("shortcuts", replace(subject, **lost)).facts)


def test_full_width_has_no_null(build, passes):
    subject = build.sliced(schedule=Schedule.constant(0.0))
    verdict = passes("shortcuts", subject)
    assert NULL not in dict(verdict.facts)
    assert verdict.witness == "singular values of (40, 40), 40 of which must be 1"


def test_a_bare_model_is_enough(build, passes):
    subject = build.sliced()
    passes("shortcuts", SlicedModel(subject.model, inputs=subject.inputs))
