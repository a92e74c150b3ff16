"""An inner plan is checked when it is made, and again against the model that it is for."""

from __future__ import annotations

import re

import pytest
import torch
from transformers import LlamaConfig

from rotcheck.bases import haar, hadamard, hadamard_factors
from rotcheck.bases.factored import Factored, dense
from rotcheck.errors import RotcheckError
from rotcheck.models import architecture_of
from rotcheck.models.tiny import adversarial_model
from rotcheck.slicing import InnerPlan, inner_plan, rotate_and_slice


def config(**changes):
    fields = {"num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 10}
    return LlamaConfig(vocab_size=11, hidden_size=24, intermediate_size=20, **{**fields, **changes})


def heads(count=3, width=10, layers=2):
    return tuple(torch.stack([haar(width, seed=7 * layer + head) for head in range(count)]) for layer in range(layers))


def hidden(size=20, layers=2):
    return tuple(dense(haar(size, seed=layer)) for layer in range(layers))


def refused(message, **fields):
    with pytest.raises(RotcheckError, match=message):
        InnerPlan(**fields).check(architecture_of(config()), config())


def test_a_right_one_is_accepted():
    InnerPlan(values=heads(), queries=heads(), hidden=hidden()).check(architecture_of(config()), config())


def test_it_says_what_it_rotates():
    assert repr(InnerPlan(values=heads(), hidden=hidden(), name="mine")) == "InnerPlan(mine: R2, R4)"


def test_an_empty_one_rotates_nothing():
    refused("no rotations; pass values")
    refused("no rotations; pass values", values=(), queries=())


@pytest.mark.parametrize("field", ["values", "queries"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[0], r"has shape \(10, 10\); pass \(heads, width, width\)"),
        (lambda b: b[..., :9], r"has shape \(3, 10, 9\); pass"),
        (lambda b: b.float(), r"is torch.float32; compute it in float64"),
        (lambda b: b.index_fill(0, torch.tensor([1]), float("nan")), "has non-finite entries"),
        (lambda b: b * (1 + 1e-12), r"is not orthogonal: .* allowed 1\.78e-14 = 16 d u; orthogonalise it"),
        (lambda b: b[:2], r"has shape \(2, 10, 10\); the layer 1 heads need \(3, 10, 10\), one basis per key"),
        (lambda b: torch.stack([haar(8, seed=h) for h in range(3)]), r"has shape \(3, 8, 8\); the layer 1 heads need"),
    ],
)
def test_a_wrong_basis_of_heads_is_named(field, change, message):
    given = heads()
    refused(rf"{field}\[1\] {message}", **{field: (given[0], change(given[1]))})


@pytest.mark.parametrize("field", ["values", "queries"])
def test_one_entry_for_each_layer(field):
    refused(f"1 entries in {field}, the model has 2 layers", **{field: heads(layers=1)})


def test_a_wrong_basis_of_a_hidden_site_is_named():
    turned = haar(5, seed=1)
    refused(
        "factor 1 of hidden.1. is not orthogonal", hidden=(hidden()[0], Factored(factors=(haar(4, seed=0), 2 * turned)))
    )
    refused("factor 0 of hidden.0. is torch.float32", hidden=(dense(haar(20, seed=0).float()), hidden()[1]))
    refused(
        r"hidden\[1\] has size 18; the layer 1 feed-forward has 20 columns",
        hidden=(hidden()[0], dense(haar(18, seed=0))),
    )
    refused("3 entries in hidden, the model has 2", hidden=hidden(layers=3))


def test_every_head_and_site_gets_a_basis_of_its_own():
    plan = inner_plan(config(), seed=3)
    matrices = [*(b for layer in plan.values for b in layer), *(b for layer in plan.queries for b in layer)]
    assert len({matrix.numpy().tobytes() for matrix in matrices}) == 12
    assert [basis.size for basis in plan.hidden] == [20, 20]
    assert not torch.equal(*(basis.matrix() for basis in plan.hidden))
    assert plan.name == "Haar R2 R3 R4"


def test_the_seed_decides_and_the_global_state_is_left_alone():
    before = torch.get_rng_state()
    one, two, other = (inner_plan(config(), seed=seed).values for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_what_is_not_asked_for_is_left_out():
    plan = inner_plan(config(), rotations=["R3"])
    assert plan.values is None
    assert plan.hidden is None
    assert len(plan.queries) == 2


def test_other_bases():
    plan = inner_plan(
        config(head_dim=12), heads=lambda n, g: hadamard(n, signs=g), hidden=lambda n, g: hadamard_factors(n, signs=g)
    )
    torch.testing.assert_close(plan.values[0].abs(), torch.full((3, 12, 12), 12**-0.5, dtype=torch.float64))
    assert plan.hidden[0].size == 20


@pytest.mark.parametrize("wrong", ["R1", "r2", "R5"])
def test_an_unknown_rotation(wrong):
    with pytest.raises(RotcheckError, match=rf"{wrong!r} is not one of R2, R3, R4 \(R1 turns the stream: random_plan"):
        inner_plan(config(), rotations=["R2", wrong])


def test_heads_that_do_not_divide():
    with pytest.raises(RotcheckError, match="llama: 6 query heads do not divide among 4 key and value heads"):
        inner_plan(config(num_key_value_heads=4))


def test_a_plan_for_another_model():
    model = adversarial_model("llama", seed=1, layers=1)
    with pytest.raises(RotcheckError, match="2 entries in values, the model has 1 layers"):
        rotate_and_slice(model, None, inner=InnerPlan(values=heads()))


def test_no_plan_at_all():
    with pytest.raises(RotcheckError, match="no plan and no inner plan"):
        rotate_and_slice(adversarial_model("llama", seed=1, layers=1), None)


def test_weights_that_the_configuration_does_not_describe():
    model = adversarial_model("llama", seed=1, layers=1)
    plan = inner_plan(config(num_hidden_layers=1, num_key_value_heads=3), rotations=["R2"])
    model.config.num_key_value_heads, model.config.head_dim = 3, 10
    message = (
        "layer 0 heads: model.layers.0.self_attn.v_proj has 24 rows and model.layers.0.self_attn.o_proj 72 columns"
    )
    with pytest.raises(RotcheckError, match=re.escape(message)):
        rotate_and_slice(model, None, inner=plan)
