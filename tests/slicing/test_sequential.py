"""Sequential calibration: each basis from the signal that the sliced sites before it produce."""

from __future__ import annotations

import pytest
import torch

from rotcheck.bases import principal_basis
from rotcheck.errors import RotcheckError
from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.slicing import Schedule, calibrate, fuse, rotate_and_slice, sequential_plan, walk

SCHEDULE = Schedule.constant(0.25)


@pytest.fixture(scope="module", params=[{}, {"word_embed_proj_dim": 24, "tied": False}])
def subject(request):
    model = adversarial_opt(seed=121, **request.param)
    return model, [adversarial_batch(model, seed=seed) for seed in range(3)]


def relative(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def walked(model, plan, batches):
    """Moments at every site of the dense model, projected with the plan, batch by batch."""
    fused, sums = fuse(model), [0] * 7
    for batch in batches:
        tokens = batch["attention_mask"].bool()

        def at_site(site, x, tokens=tokens):
            sums[site] = sums[site] + x[tokens].T @ x[tokens]
            basis = plan.sliced_basis(site)
            return x @ basis @ basis.T

        walk(fused, batch, at_site)
    return sums


def test_moments_are_those_of_the_sliced_signals(subject):
    model, batches = subject
    plan, found = sequential_plan(model, batches, SCHEDULE)
    for moment, expected in zip(found.moments(), walked(model, plan, batches), strict=True):
        assert relative(moment, expected) <= 1e-12


def test_bases_are_the_principal_axes_of_these_moments(subject):
    model, batches = subject
    plan, found = sequential_plan(model, batches, SCHEDULE)
    for site, moment in enumerate(found.moments()):
        turned = plan.basis(site).T @ moment @ plan.basis(site)
        spectrum = turned.diagonal()
        assert (turned - torch.diag(spectrum)).abs().max() <= 1e-12 * spectrum.max()
        assert relative(spectrum, principal_basis(moment)[1]) <= 1e-10


def test_the_first_site_is_the_original_one_and_later_ones_are_not(subject):
    model, batches = subject
    _, found = sequential_plan(model, batches, SCHEDULE)
    original = calibrate(model, batches).moments()
    assert relative(found.moments()[0], original[0]) <= 1e-12
    assert all(relative(found.moments()[site], original[site]) > 1e-3 for site in range(1, 7))


def test_without_slicing_it_is_the_plain_calibration(subject):
    model, batches = subject
    plan, found = sequential_plan(model, batches, Schedule.constant(0.0))
    assert plan.widths == (40,) * 7
    for moment, expected in zip(found.moments(), calibrate(model, batches).moments(), strict=True):
        assert relative(moment, expected) <= 1e-12


def test_the_sliced_model_is_the_walked_one(subject, logits_of, logit_error):
    model, batches = subject
    plan, _ = sequential_plan(model, batches, Schedule.linear(0.1, 0.4), orientation="haar", seed=3)
    expected = walk(fuse(model), batches[0], lambda s, x: x @ plan.sliced_basis(s) @ plan.sliced_basis(s).T)
    assert logit_error(logits_of(rotate_and_slice(model, plan), batches[0]), expected, batches[0]) <= 1e-12


def test_padding_and_batch_size_change_nothing():
    model = adversarial_opt(seed=121)
    batch = adversarial_batch(model, seed=5)
    rows = [ids[mask.bool()][None] for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    _, padded = sequential_plan(model, [batch], SCHEDULE)
    _, alone = sequential_plan(model, iter(rows), SCHEDULE)
    assert padded.tokens == alone.tokens
    assert all(relative(a, b) <= 1e-9 for a, b in zip(padded.moments(), alone.moments(), strict=True))


def test_the_orientation_changes_the_bases_and_not_the_signals(subject):
    model, batches = subject
    pca, first = sequential_plan(model, batches, SCHEDULE)
    haar, second = sequential_plan(model, batches, SCHEDULE, orientation="haar", seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.moments(), second.moments(), strict=True))
    assert not torch.allclose(pca.basis(1), haar.basis(1))


@pytest.mark.parametrize("statistic", ["unit_trace", "token_rms"])
def test_other_statistics(subject, statistic):
    model, batches = subject
    plan, found = sequential_plan(model, batches, SCHEDULE, statistic=statistic)
    assert len(plan.bases) == 7
    turned = plan.basis(3).T @ found.moments(statistic)[3] @ plan.basis(3)
    assert (turned - torch.diag(turned.diagonal())).abs().max() <= 1e-12 * turned.diagonal().max()


@pytest.mark.parametrize("grouping", ["global", "k-block:2"])
def test_a_shared_basis_is_refused_with_the_reason(subject, grouping):
    model, batches = subject
    with pytest.raises(RotcheckError, match=rf"{grouping} shares a basis.*make_plan"):
        sequential_plan(model, batches, SCHEDULE, grouping=grouping)


def test_a_non_finite_activation_names_the_site():
    model = adversarial_opt(seed=121, dtype=torch.float16)
    with torch.no_grad():
        model.model.decoder.layers[0].fc2.weight[::2] *= 3e4
    with pytest.raises(RotcheckError, match="non-finite activation at layer 1 attention input"):
        sequential_plan(model, [adversarial_batch(model, seed=0)], SCHEDULE)


def test_half_precision_models_work():
    model = adversarial_opt(seed=121, dtype=torch.bfloat16)
    plan, found = sequential_plan(model, [adversarial_batch(model, seed=0)], SCHEDULE)
    assert {basis.dtype for basis in plan.bases} == {torch.float64}
    assert min(found.kept_energy(plan)) > 0.9
