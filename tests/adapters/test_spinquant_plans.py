"""SpinQuant's rotations, as plans, rotate a model as SpinQuant merges them."""

from __future__ import annotations

import pytest
import torch

from rotcheck.adapters import read_rotations
from rotcheck.adapters.plans import largest_move, spinquant_plans
from rotcheck.bases import haar
from rotcheck.errors import RotcheckError
from rotcheck.models import architecture_of, head_sites
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.tiny import adversarial_model
from rotcheck.slicing import rotate_and_slice
from rotcheck.subjects.running import cast, logit_error, logits
from rotcheck.tolerance import UNIT_ROUNDOFF

LAYERS = 2


@pytest.fixture(scope="module")
def model():
    return adversarial_model("llama", seed=3, layers=LAYERS, attention_bias=False, mlp_bias=False)


@pytest.fixture
def rotations(model, tmp_path):
    generator = torch.Generator().manual_seed(5)
    width = head_sites(architecture_of(model), model.config)[0].width
    saved = {"R1": haar(model.config.hidden_size, seed=generator).float()}
    for layer in range(LAYERS):
        saved[f"model.layers.{layer}.self_attn.R2"] = haar(width, seed=generator).float()
    torch.save(saved, tmp_path / "R.bin")
    return read_rotations(tmp_path / "R.bin", model.config)


def test_weights_are_those_that_spinquant_merges(model, rotations):
    """Written anew from its conventions: fold the gain, then ``W @ R1``, ``R1.T @ W`` and R2 head by head."""
    stream, inner = spinquant_plans(rotations, model)
    rotated = rotate_and_slice(model, stream, inner=inner)
    bound = 4 * largest_move(rotations)
    width, kv = inner.values[0].shape[-1], model.config.num_key_value_heads
    for index, layer in enumerate(model.model.layers):
        r1, r2 = rotations.r1, rotations.r2[index]
        value = (layer.self_attn.v_proj.weight * layer.input_layernorm.weight) @ r1
        value = torch.cat([r2.T @ value[h * width : (h + 1) * width] for h in range(kv)])
        output = r1.T @ layer.self_attn.o_proj.weight
        output = torch.cat([part @ r2 for part in output.split(width, dim=1)], dim=1)
        down = r1.T @ layer.mlp.down_proj.weight
        found = rotated.model.layers[index]
        for expected, actual in (
            (value, found.self_attn.v_proj.weight),
            (output, found.self_attn.o_proj.weight),
            (down, found.mlp.down_proj.weight),
        ):
            assert torch.linalg.matrix_norm(expected - actual, ord=2) <= bound * torch.linalg.matrix_norm(
                expected, ord=2
            )
    assert torch.allclose(rotated.model.embed_tokens.weight, model.model.embed_tokens.weight @ rotations.r1, atol=1e-5)


@pytest.mark.parametrize("online", [False, True])
def test_the_rotated_model_is_the_same_function(rotations, online):
    model = adversarial_model("llama", seed=3, layers=LAYERS)  # with biases, which SpinQuant's own models lack
    batch = adversarial_batch(model, seed=4)
    stream, inner = spinquant_plans(rotations, model, online=online)
    rotated = rotate_and_slice(model, stream, inner=inner)
    assert rotated.config.online_queries is online
    reference = logits(cast(model, torch.float64), [batch], what="before")
    assert logit_error(logits(cast(rotated, torch.float64), [batch], what="after"), reference) <= 1e-12


def test_polar_factors_are_within_the_stored_rounding(rotations):
    assert 0 < largest_move(rotations) <= 4 * UNIT_ROUNDOFF["float32"]


def test_another_model_is_refused(rotations):
    with pytest.raises(RotcheckError, match="does not fit a model of hidden size 64 with 2 layers"):
        spinquant_plans(rotations, adversarial_model("llama", seed=1, layers=2, hidden_size=64, num_attention_heads=8))
    with pytest.raises(RotcheckError, match="with 3 layers"):
        spinquant_plans(rotations, adversarial_model("llama", seed=1, layers=3))
