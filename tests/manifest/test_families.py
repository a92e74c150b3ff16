"""Rotations by their names, R1 to R4: the same function in every family, and sizes that are refused by name."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.models import architecture_of
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.exact import exact
from rotcheck.models.tiny import adversarial_model
from rotcheck.slicing import rotate_and_slice
from rotcheck.slicing.families import FAMILIES, ROTATIONS, check_rotations, full_width


@settings(max_examples=12)
@given(
    model_type=st.sampled_from(["opt", "llama", "phi", "phi3", "qwen3", "gemma2"]),
    kinds=st.sets(st.sampled_from(ROTATIONS), min_size=1),
    family=st.sampled_from(FAMILIES),
    seed=st.integers(0, 2**20),
)
def test_the_function_stays(model_type, kinds, family, seed):
    model = adversarial_model(model_type, seed=seed, layers=2)
    if architecture_of(model).refuse(model.config):
        kinds = kinds - {"R1"} or {"R2"}
    plan, inner = full_width(model.config, tuple(kinds), family=family, seed=seed)
    assert (plan is not None) == ("R1" in kinds)
    given_kinds = {"R2": "values", "R3": "queries", "R4": "hidden"}
    for kind, field in given_kinds.items():
        assert (inner is not None and getattr(inner, field) is not None) == (kind in kinds)
    batch = adversarial_batch(model, seed=seed, padded=False)
    with torch.no_grad():
        before, after = (exact(m)(**batch).logits for m in (model, rotate_and_slice(model, plan, inner=inner)))
    assert (after - before).abs().max() <= 1e-12 * before.abs().max()


def test_the_same_seed_draws_the_same_and_the_stream_its_own():
    config = adversarial_model("llama", seed=0, layers=2).config
    (one, inner), (again, same), (other, _) = (full_width(config, ROTATIONS, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(one.bases[0], again.bases[0])
    assert not torch.equal(one.bases[0], other.bases[0])
    assert torch.equal(inner.values[1], same.values[1])
    assert not torch.equal(inner.values[0], inner.queries[0])
    assert not torch.equal(one.bases[0][:12, 0].sign(), inner.values[0][0][:, 0].sign())


def test_hadamard_entries_have_one_size_and_signs_make_them_asymmetric():
    config = adversarial_model("llama", seed=0, layers=1).config
    for family in FAMILIES:
        plan, inner = full_width(config, ROTATIONS, family=family, seed=1)
        flat = torch.allclose(plan.bases[0].abs(), torch.tensor(48.0).rsqrt().double().expand(48, 48))
        assert flat == (family != "haar")
        assert inner.hidden[0].sizes == ((8, 14) if family == "haar" else (112,))
        signs = {float(sign) for sign in inner.hidden[0].signs}
        assert signs == ({1.0} if family == "hadamard" else {1.0, -1.0})


@pytest.mark.parametrize(
    ("rotations", "family", "changes", "says"),
    [
        (["R5"], "haar", {}, "rotation 'R5' is not one of R1, R2, R3, R4"),
        ([], "haar", {}, "no rotation is named; name some of R1, R2, R3, R4"),
        (["R1"], "dct", {}, "family 'dct' is not one of random-hadamard, hadamard, haar"),
        (["R1"], "hadamard", {"hidden_size": 54}, "R1: the stream has 54 coordinates, and no Sylvester or Paley"),
        (["R3"], "hadamard", {"head_dim": 10}, "R3: layer 0 heads has 10 coordinates"),
        (["R4"], "random-hadamard", {"intermediate_size": 92}, "has that size; use haar, or leave R4 out"),
    ],
)
def test_refusals(one_line, rotations, family, changes, says):
    config = adversarial_model("llama", seed=0, layers=1, **changes).config
    one_line(lambda: full_width(config, rotations, family=family), says)


def test_a_size_is_refused_only_where_it_is_rotated():
    config = adversarial_model("llama", seed=0, layers=1, intermediate_size=92).config
    assert check_rotations(config, ("R3", "R1", "R3"), family="hadamard") == ("R1", "R3")
    assert check_rotations(config, ROTATIONS, family="haar") == ROTATIONS


def test_a_stream_that_cannot_be_rotated_is_refused(one_line):
    config = adversarial_model("gemma3_text", seed=0, layers=1).config
    one_line(lambda: full_width(config, ("R1", "R2")), "gemma3_text has norms on the outputs of its branches")
    assert full_width(config, ("R2",))[0] is None
