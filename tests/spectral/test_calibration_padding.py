"""Padding is not calibrated on, and the model is left as it was."""

from __future__ import annotations

import pytest
import torch

from rotcheck import RotcheckError
from rotcheck.spectral import calibrate_cache
from rotcheck.spectral.recorder import run_recorded

FAMILIES = ("opt", "llama", "phi", "gemma3_text")


def same(one, two, *, exact=False):
    assert one.tokens == two.tokens
    for kind in ("keys", "values"):
        for a, b in zip(getattr(one, kind), getattr(two, kind), strict=True):
            for first, second in ((a.moments.outer, b.moments.outer), (a.moments.total, b.moments.total)):
                torch.testing.assert_close(first, second, **({"rtol": 0, "atol": 0} if exact else {}))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_padded_batch_is_its_rows_one_by_one(family, tiny, batch_of):
    """Positions are counted from a row's first token, as generate counts them: padding turns no key further."""
    model = tiny(family)
    batch = batch_of(model, seed=3)
    mask = batch["attention_mask"].bool()
    alone = [ids[keep].unsqueeze(0) for ids, keep in zip(batch["input_ids"], mask, strict=True)]
    assert len({row.shape[1] for row in alone}) == 3
    same(calibrate_cache(model, [batch]), calibrate_cache(model, alone))


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_on_the_right_is_the_same(family, tiny, batch_of):
    model = tiny(family)
    left = batch_of(model, seed=3)
    lengths = left["attention_mask"].sum(1).tolist()
    right = {name: torch.zeros_like(tensor) + (name == "input_ids") for name, tensor in left.items()}
    for row, length in enumerate(lengths):
        for name in left:
            right[name][row, :length] = left[name][row, -length:]
    same(calibrate_cache(model, [left]), calibrate_cache(model, [right]))


@pytest.mark.parametrize("family", ["opt", "llama"])
def test_what_stands_under_the_mask_changes_no_bit(family, tiny, batch_of):
    model = tiny(family)
    batch = batch_of(model, seed=3)
    other = batch | {"input_ids": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, 7)}
    same(calibrate_cache(model, [batch]), calibrate_cache(model, [other]), exact=True)


@pytest.mark.parametrize("family", ["opt", "llama"])
def test_a_row_without_tokens_is_not_there(family, tiny, batch_of):
    model = tiny(family)
    batch = batch_of(model, seed=3)
    batch["attention_mask"][1] = 0
    fewer = {name: tensor[[0, 2]] for name, tensor in batch.items()}
    found = calibrate_cache(model, [batch])
    assert found.tokens == int(batch["attention_mask"].sum())
    same(found, calibrate_cache(model, [fewer]))


def test_a_batch_without_tokens_is_not_there(tiny, batch_of):
    model = tiny("llama")
    batch, empty = batch_of(model, seed=3), batch_of(model, seed=4)
    empty["attention_mask"][:] = 0
    same(calibrate_cache(model, [empty, batch, empty]), calibrate_cache(model, [batch]), exact=True)


def test_ids_alone_are_a_batch_without_padding(tiny, batch_of):
    model = tiny("llama")
    batch = batch_of(model, seed=3, padded=False)
    same(calibrate_cache(model, [batch["input_ids"]]), calibrate_cache(model, [batch]))


def test_nothing_is_written_to(tiny, batch_of):
    model = tiny("opt")
    batch = batch_of(model, seed=3)
    copies = {name: tensor.clone() for name, tensor in batch.items()}
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = torch.get_rng_state()
    calibrate_cache(model, [batch])
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(batch[name], copies[name]) for name in batch)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("fails", [False, True])
def test_each_module_keeps_its_mode(fails, tiny, batch_of):
    """Dropout is off while calibrating; the flags come back, after an error too."""
    model = tiny("opt")
    seen = []
    model.train()
    model.model.decoder.layers[1].eval()
    flags = [module.training for module in model.modules()]
    handle = model.model.decoder.layers[0].register_forward_pre_hook(lambda module, args: seen.append(module.training))
    try:
        if fails:
            broken = torch.nn.Parameter(torch.full((48,), float("nan"), dtype=torch.float64))
            kept, model.model.decoder.layers[2].self_attn.k_proj.bias = (
                model.model.decoder.layers[2].self_attn.k_proj.bias, broken,
            )  # fmt: skip
            with pytest.raises(RotcheckError, match="the keys of layer 2 are not finite at head 0"):
                calibrate_cache(model, [batch_of(model, seed=0)])
            model.model.decoder.layers[2].self_attn.k_proj.bias = kept
        else:
            calibrate_cache(model, [batch_of(model, seed=0)])
        assert [module.training for module in model.modules()] == flags
    finally:
        handle.remove()
        model.eval()
    assert seen == [False]


def test_the_visitor_sees_each_layer_once_and_no_gradient(tiny, batch_of):
    model = tiny("gemma3_text")
    seen = []
    run_recorded(model, batch_of(model, seed=0), lambda layer, k, v: seen.append((layer, k.shape, k.requires_grad)))
    assert seen == [(layer, (3, 2, 13, 20), False) for layer in range(3)]
