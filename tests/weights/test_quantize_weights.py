"""A model's matrices are rounded in the basis in which it multiplies them, and calibrated on what meets them there."""

from __future__ import annotations

import pytest
import torch

from rotcheck.bases import hadamard, hadamard_factors
from rotcheck.bases.factored import dense
from rotcheck.errors import RotcheckError
from rotcheck.models import architecture_of
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.tensors import linear
from rotcheck.models.tiny import SMALL, adversarial_model
from rotcheck.quantize.rounding import RoundToNearest
from rotcheck.quantize.weights import output_error, quantize_weight
from rotcheck.slicing import inner_plan, random_plan, rotate_and_slice
from rotcheck.slicing.weights import input_moments, quantize_weights, weight_paths

FOUR = RoundToNearest(bits=4)


def rotated(model, seed=0):
    """Hadamard matrices with random signs everywhere (R1, R2, R4)."""
    inner = inner_plan(
        model, rotations=("R2", "R4"), seed=seed, heads=lambda n, g: hadamard(n, signs=g),
        hidden=lambda n, g: hadamard_factors(n, signs=g),
    )  # fmt: skip
    plan = random_plan(
        model.config.hidden_size, model.config.num_hidden_layers, "global", seed=seed,
        branches=len(architecture_of(model).branches), basis=lambda n, g: hadamard(n, signs=g),
    )  # fmt: skip
    return rotate_and_slice(model, plan, inner=inner)


@pytest.mark.parametrize("model_type", [name for name in SMALL if not name.startswith(("gemma2", "gemma3"))])
def test_every_matrix_of_a_layer_and_nothing_else(model_type):
    model = adversarial_model(model_type, seed=1, layers=2)
    rounded = quantize_weights(model, FOUR)
    names = {linear(model, path).weight_name for path in weight_paths(architecture_of(model), model.config)}
    changed = {name for name, p in rounded.named_parameters() if not torch.equal(p, model.get_parameter(name))}
    assert changed == names
    assert not any("norm" in name or "embed" in name or "head" in name for name in changed)


def test_values_are_those_of_one_matrix_rounded_alone():
    model = adversarial_model("mixtral", seed=2, layers=2)
    rounded = quantize_weights(model, FOUR)
    path = "model.layers.1.mlp.experts.down_proj"
    expected = quantize_weight(model.get_parameter(path)[3], FOUR).dequantize()
    assert torch.equal(rounded.get_parameter(path)[3], expected)
    # A router chooses with few numbers, and keeps them all.
    assert torch.equal(rounded.model.layers[1].mlp.gate.weight, model.model.layers[1].mlp.gate.weight)


def test_the_original_is_left_alone():
    model = adversarial_model("llama", seed=3, layers=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    quantize_weights(model, FOUR)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_moments_are_those_of_the_rotated_inputs():
    """R4: the down projection multiplies ``a @ U``, so its moment is ``U.T C U`` of the un-rotated model's C."""
    model = adversarial_model("qwen2", seed=4, layers=2)
    batches = [adversarial_batch(model, seed=5)]
    inner = inner_plan(model, rotations=("R4",), seed=6)
    after = rotate_and_slice(model, None, inner=inner)
    plain, turned = input_moments(model, batches), input_moments(after, batches)
    for layer, basis in enumerate(inner.hidden):
        path = f"model.layers.{layer}.mlp.down_proj"
        u = basis.matrix()
        expected = u.T @ plain[path] @ u
        # The model's own norms compute in float32.
        assert torch.allclose(turned[path], expected, rtol=0, atol=1e-5 * expected.abs().max())
        assert not torch.allclose(turned[path], plain[path], rtol=0, atol=1e-2 * expected.abs().max())


def test_padding_is_not_counted():
    model = adversarial_model("opt", seed=7, layers=2)
    batch = adversarial_batch(model, seed=8)
    alone = [
        {"input_ids": ids[mask.bool()][None]}
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    together, apart = input_moments(model, [batch]), input_moments(model, alone)
    for path, moment in together.items():
        assert torch.allclose(moment, apart[path], rtol=0, atol=1e-10 * moment.abs().max()), path


def test_experts_have_no_moment_of_their_own():
    model = adversarial_model("mixtral", seed=9, layers=2)
    assert not any("experts" in path for path in input_moments(model, [adversarial_batch(model, seed=1)]))


def test_clipping_lowers_the_output_error_of_every_matrix():
    model = rotated(adversarial_model("llama", seed=10, layers=2))
    batches = [adversarial_batch(model, seed=11, batch=6)]
    moments = input_moments(model, batches)
    plain, clipped = quantize_weights(model, FOUR), quantize_weights(model, FOUR, moments=moments)
    for path, moment in moments.items():
        weight, first, second = (linear(m, path).weight for m in (model, plain, clipped))
        assert output_error(weight, second, moment) <= output_error(weight, first, moment)


def test_one_outlier_column_costs_less_when_rotated():
    """The claim of rotate-then-quantise, in the model: a few large columns set the steps of every row."""
    model = adversarial_model("opt", seed=12, layers=2)
    for layer in model.model.decoder.layers:
        layer.fc2.weight.data[:, :3] *= 30
    batches = [adversarial_batch(model, seed=13, batch=6)]
    inner = inner_plan(model, rotations=("R4",), hidden=lambda n, g: hadamard_factors(n, signs=g), seed=1)
    after = rotate_and_slice(model, None, inner=inner)
    for layer in range(2):
        path = f"model.decoder.layers.{layer}.fc2"
        errors = [
            output_error(linear(m, path).weight, linear(quantize_weights(m, FOUR), path).weight, moments[path])
            for m, moments in ((model, input_moments(model, batches)), (after, input_moments(after, batches)))
        ]
        assert errors[1] < 0.5 * errors[0], errors


def test_a_wrong_group_names_the_matrix():
    model = adversarial_model("llama", seed=14, layers=2)
    with pytest.raises(RotcheckError, match=r"^model\.layers\.0\.self_attn\.q_proj: "):
        quantize_weights(model, RoundToNearest(bits=4, group=7))


def test_a_dense_factor_rounds_like_its_factors():
    model = adversarial_model("opt", seed=15, layers=2)
    factored = inner_plan(model, rotations=("R4",), hidden=lambda n, g: hadamard_factors(n, signs=g), seed=2)
    whole = inner_plan(
        model, rotations=("R4",), hidden=lambda n, g: dense(hadamard_factors(n, signs=g).matrix()), seed=2
    )
    for first, second in zip(factored.hidden, whole.hidden, strict=True):
        assert torch.equal(first.matrix(), second.matrix())
    a, b = (rotate_and_slice(model, None, inner=plan) for plan in (factored, whole))
    for layer in range(2):
        path = f"model.decoder.layers.{layer}.fc2"
        assert torch.allclose(linear(a, path).weight, linear(b, path).weight, rtol=0, atol=1e-14)
