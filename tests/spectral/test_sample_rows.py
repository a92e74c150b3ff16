"""The rows kept for codebooks: the same tokens everywhere, a fair draw, bounded, and not a matter of batches."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck import RotcheckError
from rotcheck.spectral import calibrate_cache
from rotcheck.spectral.calibrate import _Draw


def drawn(sizes, *, size, seed):
    """Numbers of the tokens that a stream of batches of these sizes keeps, in order."""
    draw, held, start = _Draw(size, seed), torch.empty(0, dtype=torch.long), 0
    for count in sizes:
        old, new = draw.among(count)
        held = torch.cat([held[old], start + new])
        start += count
    assert draw.tokens == start
    return held.tolist()


@given(seed=st.integers(0, 2**31), size=st.integers(2, 12), total=st.integers(0, 40), cuts=st.lists(st.integers(0, 40)))
def test_the_draw_does_not_depend_on_batches(seed, size, total, cuts):
    edges = [0, *sorted(min(cut, total) for cut in cuts), total]
    sizes = [b - a for a, b in pairwise(edges)]
    found = drawn(sizes, size=size, seed=seed)
    assert found == drawn([total], size=size, seed=seed)
    assert found == sorted(set(found))  # without replacement, in the order of the stream
    assert len(found) == min(size, total)


@given(seed=st.integers(0, 2**31))
def test_a_larger_sample_contains_a_smaller_one(seed):
    assert set(drawn([7, 30], size=5, seed=seed)) < set(drawn([7, 30], size=9, seed=seed))


def test_every_token_is_as_likely():
    """400 draws of 5 from 20: each token 100 times, with a deviation of 8.7."""
    times = torch.zeros(20)
    for seed in range(400):
        times[drawn([3, 9, 8], size=5, seed=seed)] += 1
    assert times.sum() == 2000
    assert (times - 100).abs().max() < 4.5 * (400 * 0.25 * 0.75) ** 0.5


@pytest.mark.parametrize("family", ["llama", "deepseek_v3"])
def test_heads_and_layers_keep_the_same_tokens(family, tiny, batch_of):
    """Those of the draw, wherever they were seen."""
    model = tiny(family)
    batches = [batch_of(model, seed=seed) for seed in range(3)]
    found = calibrate_cache(model, batches, sample=11, seed=4)
    everything = calibrate_cache(model, batches)
    places = drawn([found.tokens], size=11, seed=4)
    assert places != list(range(11))
    for kind in ("keys", "values"):
        for some, whole in zip(getattr(found, kind), getattr(everything, kind), strict=True):
            assert torch.equal(some.rows, whole.rows[:, places])


@settings(max_examples=6)
@given(seed=st.integers(0, 2**31))
def test_rows_do_not_depend_on_how_windows_are_batched(seed, tiny, batch_of):
    model = tiny("opt")
    ids = batch_of(model, seed=1, rows=5, padded=False)["input_ids"]
    one, two = (calibrate_cache(model, ids.split(size), sample=9, seed=seed) for size in (1, 3))
    for kind in ("keys", "values"):
        for a, b in zip(getattr(one, kind), getattr(two, kind), strict=True):
            torch.testing.assert_close(a.rows, b.rows, rtol=1e-6, atol=1e-6)  # float32 rows of a float64 model


def test_moments_are_of_all_rows_whatever_the_sample(tiny, batch_of):
    model = tiny("llama")
    batches = [batch_of(model, seed=seed) for seed in range(2)]
    few, many = calibrate_cache(model, batches, sample=2), calibrate_cache(model, batches)
    assert few.tokens == many.tokens
    for a, b in zip(few.keys, many.keys, strict=True):
        assert a.rows.shape[1] == 2
        assert torch.equal(a.moments.outer, b.moments.outer)


def test_where_there_are_fewer_tokens_all_are_kept(tiny, batch_of):
    model = tiny("llama")
    found = calibrate_cache(model, [batch_of(model, seed=0)], sample=1000)
    assert all(s.rows.shape[1] == found.tokens == 33 for s in (*found.keys, *found.values))
    assert all(s.rows.dtype == torch.float32 and s.rows.device.type == "cpu" for s in found.keys)


def test_another_seed_keeps_others(tiny, batch_of):
    model = tiny("llama")
    one, two, again = (
        calibrate_cache(model, [batch_of(model, seed=0)], sample=7, seed=s).keys[0].rows for s in (0, 1, 0)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, two)


@pytest.mark.parametrize("sample", [1, 0, -3])
def test_a_sample_that_fits_no_table_is_refused(sample, tiny, batch_of):
    with pytest.raises(RotcheckError, match=rf"^a sample of {sample} rows fits no codebook: use at least 2$"):
        calibrate_cache(tiny("opt"), [batch_of(tiny("opt"), seed=0)], sample=sample)
