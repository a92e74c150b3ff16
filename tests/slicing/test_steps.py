"""Each rule of the construction is needed: replacing any one of them changes the logits."""

from __future__ import annotations

import pytest
import torch

from rotcheck.errors import RotcheckError
from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.slicing import Schedule, Steps, fuse, random_plan, rotate_and_slice, walk

DEFECTS = {
    "norm bias dropped": {"fold_gain": lambda w, b, gain, norm_bias: (w * gain, b)},
    "gain dropped": {"fold_gain": lambda w, b, gain, norm_bias: (w, b + w @ norm_bias)},
    "bias folded after the gain": {"fold_gain": lambda w, b, gain, norm_bias: (w * gain, b + (w * gain) @ norm_bias)},
    "head gain dropped": {"fold_head_gain": lambda w, b, gain, norm_bias: (w, None)},
    "output weights not centred": {"center_weight": lambda w: w},
    "output weights centred over inputs": {"center_weight": lambda w: w - w.mean(dim=1, keepdim=True)},
    "output biases not centred": {"center_bias": lambda b: b},
    "token embeddings not centred": {"center_embedding": lambda e: e},
    "positions not centred": {"center_positions": lambda e: e},
    "readers transposed": {"read": lambda w, u: w @ u.T},
    "readers not rotated": {"read": lambda w, u: w[:, : u.shape[1]]},
    "writers transposed": {"write": lambda w, u: u @ w},
    "output biases not rotated": {"write_bias": lambda b, u: b[: u.shape[1]]},
    "token embeddings not rotated": {"embed": lambda e, u: e[:, : u.shape[1]]},
    "positions not rotated": {"embed_positions": lambda e, u: e[:, : u.shape[1]]},
    "shortcuts transposed": {"shortcut": lambda u, v: (u.T @ v).T.contiguous()},
    "shortcuts omitted": {"shortcut": lambda u, v: torch.eye(u.shape[1], v.shape[1], dtype=u.dtype)},
    "readers in the next basis": {"reader_site": lambda site, plan: site + 1},
    "head in the first basis": {"head_site": lambda site, plan: 0},
}


@pytest.fixture(scope="module")
def subject(logits_of):
    model = adversarial_opt(seed=161)
    batch = adversarial_batch(model, seed=162)
    return model, batch, logits_of(model, batch)


@pytest.mark.parametrize("name", DEFECTS)
def test_a_wrong_step_shows_at_full_width(subject, name, logits_of, logit_error):
    model, batch, expected = subject
    plan = random_plan(40, 3, "per-layer", seed=163)
    defective = rotate_and_slice(model, plan, steps=Steps(**DEFECTS[name]))
    assert logit_error(logits_of(defective, batch), expected, batch) > 1e-4


def test_the_divisor_shows_only_in_a_sliced_model(subject, logits_of, logit_error):
    model, batch, expected = subject
    wrong = Steps(norm_divisor=lambda hidden, width: width)
    full = rotate_and_slice(model, random_plan(40, 3, "per-layer", seed=163), steps=wrong)
    assert logit_error(logits_of(full, batch), expected, batch) <= 1e-12
    plan = random_plan(40, 3, "global", Schedule.constant(0.25), 163)
    reference = walk(fuse(model), batch, lambda s, x: x @ plan.sliced_basis(s) @ plan.sliced_basis(s).T)
    assert logit_error(logits_of(rotate_and_slice(model, plan), batch), reference, batch) <= 1e-12
    assert logit_error(logits_of(rotate_and_slice(model, plan, steps=wrong), batch), reference, batch) > 1e-2


@pytest.mark.parametrize("k", [1, 2])
def test_the_k_block_boundary_bug_breaks_the_unsliced_model(subject, k, logits_of, logit_error):
    # The attention of a block's first layer reads the stream of the block before with its own block's basis.
    model, batch, expected = subject
    plan = random_plan(40, 3, f"k-block:{k}", seed=164, change="attention")

    def boundary(site, plan):
        starts_block = site > 0 and site % 2 == 0 and plan.site_basis[site] != plan.site_basis[site + 1]
        return site + 1 if starts_block else site

    right = rotate_and_slice(model, plan)
    wrong = rotate_and_slice(model, plan, steps=Steps(reader_site=boundary))
    assert logit_error(logits_of(right, batch), expected, batch) <= 1e-12
    assert logit_error(logits_of(wrong, batch), expected, batch) > 0.05


def test_a_reader_in_another_basis_keeps_the_width_of_its_stream():
    model = adversarial_opt(seed=161)
    plan = random_plan(40, 3, "per-layer", Schedule.linear(0.1, 0.5), 163)
    wrong = rotate_and_slice(model, plan, steps=Steps(reader_site=lambda site, plan: site + 1))
    widths = [layer.fc1.in_features for layer in wrong.model.decoder.layers]
    assert widths == [plan.widths[site] for site in (1, 3, 5)]


def test_a_step_of_the_wrong_shape_names_the_tensor():
    with pytest.raises(RotcheckError, match=r"embed_tokens.weight came out as \(97, 40\).*\(97, 24\)"):
        rotate_and_slice(
            adversarial_opt(seed=161),
            random_plan(40, 3, "global", Schedule.constant(0.25)),
            steps=Steps(embed=lambda e, u: e),
        )


def test_steps_see_float64_only():
    seen = []

    def read(w, u):
        seen.append((w.dtype, u.dtype))
        return w @ u

    rotate_and_slice(
        adversarial_opt(seed=161, dtype=torch.bfloat16), random_plan(40, 3, "global"), steps=Steps(read=read)
    )
    assert set(seen) == {(torch.float64, torch.float64)}
    assert len(seen) == 3 * 4 + 1


def test_writing_into_its_argument_does_not_reach_the_original():
    model = adversarial_opt(seed=161)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def center(weight):
        return weight.sub_(weight.mean(dim=0, keepdim=True))

    rotate_and_slice(model, random_plan(40, 3, "global"), steps=Steps(center_weight=center))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
