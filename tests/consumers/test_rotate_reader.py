"""``rotate_reader``: a consumer of the stream gives on the rotated model what it gave on the original."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.errors import RotcheckError
from rotcheck.models import architecture_of, sites
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.exact import ExactRMSNorm, exact, rms_eps
from rotcheck.models.streams import record
from rotcheck.models.tiny import adversarial_model
from rotcheck.slicing import random_plan, rotate_and_slice
from rotcheck.slicing.consumers import rotate_reader
from rotcheck.slicing.norm import GainFreeRMSNorm

KINDS = ("opt", "llama", "phi", "gemma", "qwen2_moe")
OUT = 29


def made(kind, seed, grouping="per-layer"):
    model = adversarial_model(kind, seed=seed, layers=2)
    plan = random_plan(48, 2, grouping, seed=seed, branches=len(architecture_of(model).branches))
    return model, plan, rotate_and_slice(model, plan), adversarial_batch(model, seed=seed + 1, length=7)


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def streams(model, batch):
    found = {}
    with torch.no_grad(), record(model, architecture_of(model), lambda index, stream: found.update({index: stream})):
        model(**batch)
    return found


@settings(deadline=None, max_examples=8)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**31), biased=st.booleans())
def test_behind_the_norm_of_every_site(kind, seed, biased):
    model, plan, rotated, batch = made(kind, seed)
    model = exact(model) if kind != "opt" else model
    before, after = streams(model, batch), streams(rotated, batch)
    stock = adversarial_model(kind, seed=seed, layers=2)
    weight, bias = normal(seed + 2, OUT, 48), normal(seed + 3, OUT) if biased else None
    for site in sites(architecture_of(stock), stock.config):
        turned, moved = rotate_reader(stock, plan, site.name, weight, bias)
        x, y = model.get_submodule(site.norm)(before[site.index]), rotated.get_submodule(site.norm)(after[site.index])
        expected = torch.nn.functional.linear(x, weight, bias)
        found = torch.nn.functional.linear(y, turned, moved)
        assert ((found - expected).abs().max() / expected.abs().max()).item() < 1e-12


def test_sites_by_index_and_name_are_the_same():
    model, plan, *_ = made("llama", 1)
    weight = normal(2, OUT, 48)
    by_name, by_index = (rotate_reader(model, plan, site, weight)[0] for site in ("layer 1 attention input", 2))
    assert by_name.equal(by_index)


def test_a_norm_of_its_own():
    """As an MTP head has: its gain is folded, and a gain-free norm with its eps stands in its place."""
    model, plan, rotated, batch = made("gemma", 3)
    norm = type(model.model.norm)(48, eps=3e-4).double()
    norm.weight.data = 0.3 * normal(4, 48)
    weight = normal(5, OUT, 48)
    turned, moved = rotate_reader(model, plan, "head input", weight, norm=norm)
    assert moved is None
    before, after = streams(exact(model), batch)[4], streams(rotated, batch)[4]
    expected = ExactRMSNorm(norm.weight + 1.0, rms_eps(norm))(before) @ weight.T
    torch.testing.assert_close(GainFreeRMSNorm(48, rms_eps(norm))(after) @ turned.T, expected, rtol=0, atol=1e-12)


def test_a_narrow_stream_keeps_the_leading_columns():
    model, plan, *_ = made("llama", 6)
    narrow = type(plan)(bases=plan.bases, site_basis=plan.site_basis, widths=(48, 40, 32, 24, 16), name="narrow")
    weight = normal(7, OUT, 48)
    full, cut = rotate_reader(model, plan, 3, weight)[0], rotate_reader(model, narrow, 3, weight)[0]
    assert cut.equal(full[:, :24])


def test_the_dtype_is_that_of_the_weight():
    model, plan, *_ = made("llama", 8)
    weight = normal(9, OUT, 48)
    turned, moved = rotate_reader(model, plan, 0, weight.to(torch.bfloat16), torch.ones(OUT))
    assert turned.dtype is moved.dtype is torch.bfloat16
    wide = rotate_reader(model, plan, 0, weight.to(torch.bfloat16).double())[0]
    assert turned.equal(wide.to(torch.bfloat16))  # computed in float64, rounded once


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ("layer 9", r"no site 'layer 9': there are 'layer 0 attention input' to 'layer 1 feed-forward input' and "),
        (5, "no site 5: .*or indices 0 to 4"),
    ],
)
def test_an_unknown_site(site, message):
    model, plan, *_ = made("llama", 1)
    with pytest.raises(RotcheckError, match=message):
        rotate_reader(model, plan, site, normal(1, OUT, 48))


def test_a_weight_of_another_width():
    model, plan, *_ = made("llama", 1)
    with pytest.raises(RotcheckError, match=r"the weight has 47 columns, the stream at the head input has 48"):
        rotate_reader(model, plan, "head input", normal(1, OUT, 47))


def test_the_rotated_model_is_not_the_original():
    _, plan, rotated, _ = made("llama", 1)
    with pytest.raises(RotcheckError, match="rotated already: pass the original"):
        rotate_reader(rotated, plan, 0, normal(1, OUT, 48))


def test_a_plan_for_another_model():
    model, *_ = made("llama", 1)
    with pytest.raises(RotcheckError, match="does not fit a model of hidden size 48 with 5 sites"):
        rotate_reader(model, random_plan(48, 3, "global"), 0, normal(1, OUT, 48))
