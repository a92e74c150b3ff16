"""A forward or hook that holds modules of the model itself is found, because a copy would go on calling those."""

from __future__ import annotations

import functools
import types

import pytest
import torch

from rotcheck.errors import RotcheckError
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.exact import cast_copy, exact
from rotcheck.models.patched import patched
from rotcheck.models.tiny import adversarial_model

PATH = "model.layers.1.self_attn"
HELD = {}


def by_closure(attention):
    stock = type(attention).forward
    attention.forward = lambda *args, **kwargs: stock(attention, *args, **kwargs)


def by_bound_method(attention):
    stock = attention.forward
    attention.forward = lambda *args, **kwargs: stock(*args, **kwargs)


def by_partial_of_a_closure(attention):
    stock = functools.partial(type(attention).forward, attention)
    attention.forward = functools.partial(lambda *args, **kwargs: stock(*args, **kwargs))


def by_default(attention):
    attention.forward = lambda *args, held=attention, **kwargs: type(held).forward(held, *args, **kwargs)


def by_a_list(attention):
    parts = [attention]
    attention.forward = lambda *args, **kwargs: type(parts[0]).forward(parts[0], *args, **kwargs)


def by_global(attention):
    HELD["it"] = attention
    attention.forward = lambda *args, **kwargs: type(HELD["it"]).forward(HELD["it"], *args, **kwargs)


def by_a_function_of_a_function(attention):
    def inner(*args, **kwargs):
        return type(attention).forward(attention, *args, **kwargs)

    attention.forward = lambda *args, **kwargs: inner(*args, **kwargs)


def by_method_with_a_closure(attention):
    stock = attention.forward
    attention.forward = types.MethodType(lambda self, *args, **kwargs: stock(*args, **kwargs), attention)


def by_hook(attention):
    attention.register_forward_hook(lambda module, args, output: (attention.o_proj.weight.sum() * 0 + output[0], None))


def by_hook_on_a_weight(attention):
    weight = attention.o_proj.weight
    attention.register_forward_pre_hook(lambda module, args: args if weight.dim() == 2 else None)


WRONG = (
    by_closure, by_bound_method, by_partial_of_a_closure, by_default, by_a_list, by_global,
    by_a_function_of_a_function, by_method_with_a_closure, by_hook, by_hook_on_a_weight,
)  # fmt: skip


def bound(attention):
    stock = type(attention).forward
    attention.forward = types.MethodType(lambda self, *args, **kwargs: stock(self, *args, **kwargs), attention)


def partial(attention):
    attention.forward = functools.partial(type(attention).forward, attention)


def hook_of_its_own_module(attention):
    matrix = torch.eye(3)
    attention.register_forward_hook(lambda module, args, output: output if matrix.dim() == 2 else module)


@pytest.fixture
def model():
    yield adversarial_model("llama", seed=1, layers=2, dtype=torch.float32)
    HELD.clear()


@pytest.mark.parametrize("patch", WRONG, ids=lambda patch: patch.__name__)
def test_functions_that_hold_the_original(patch, model):
    assert patched(model) == ""
    patch(model.get_submodule(PATH))
    kind = "hook" if "hook" in patch.__name__ else "forward"
    assert patched(model) == (
        f"the {kind} of {PATH} is a closure over the model, which a copy cannot follow: bind it with "
        "types.MethodType, or subclass"
    )
    for copying in (exact, lambda given: cast_copy(given, torch.bfloat16)):
        with pytest.raises(RotcheckError, match=f"^LlamaForCausalLM cannot be copied: the {kind} of {PATH} is a"):
            copying(model)


@pytest.mark.parametrize("patch", [bound, partial, hook_of_its_own_module], ids=lambda patch: patch.__name__)
def test_what_a_copy_follows(patch, model):
    plain = exact(model)
    patch(model.get_submodule(PATH))
    assert patched(model) == ""
    copied, batch = exact(model), adversarial_batch(model, seed=2)
    assert torch.equal(copied(**batch).logits, plain(**batch).logits)
    with torch.no_grad():
        copied.get_submodule(PATH).o_proj.weight.zero_()
    assert not torch.equal(copied(**batch).logits, plain(**batch).logits), "the copy has weights of its own"


def test_what_transformers_registers_is_no_patch(model):
    model(**adversarial_batch(model, seed=2), output_hidden_states=True, output_attentions=True)
    assert patched(model) == ""
    assert patched(lambda ids: ids) == patched(None) == ""
