"""Static tables: the nearest level, and only levels that are there."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.errors import RotcheckError
from rotcheck.quantize import LevelQuantizer, fit_levels


def table(bits, seed=0):
    """Sorted random levels for bits (H, d)."""
    generator = torch.Generator().manual_seed(seed)
    size = 2 ** int(bits.max())
    levels = torch.randn(*bits.shape, size, generator=generator, dtype=torch.float64)
    beyond = torch.arange(size) >= (2**bits).unsqueeze(-1)
    return levels.masked_fill(beyond, torch.inf).sort(-1).values


BITS = torch.tensor([[3, 0, 1, 5, 2], [0, 4, 4, 0, 8], [1, 1, 1, 1, 1]])


def nearest(quantizer, y):
    """Distance from every level, the smallest one wins."""
    distance = (y.unsqueeze(-1) - quantizer.levels.unsqueeze(1)).abs()
    return distance.argmin(-1), distance.amin(-1)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 9), scale=st.sampled_from([0.01, 1.0, 30.0]))
def test_the_nearest_level_wins(seed, n, scale):
    quantizer = LevelQuantizer(bits=BITS, levels=table(BITS, seed))
    y = scale * torch.randn(3, n, 5, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    index, distance = nearest(quantizer, y)
    assert torch.equal(quantizer.codes(y), index)
    found = quantizer.decode(quantizer.encode(y))
    assert torch.equal((y - found).abs(), distance)


def test_codes_stay_below_their_bits(bank, allocations):
    quantizer = fit_levels(bank, allocations(bank))
    codes = quantizer.codes(1e3 * bank)
    assert codes.dtype == torch.int64
    assert (codes >= 0).all()
    assert (codes < 2 ** quantizer.bits.unsqueeze(1)).all()
    assert (codes == 2 ** quantizer.bits.unsqueeze(1) - 1).any()


def test_halfway_goes_down():
    levels = torch.tensor([[[-1.0, 1.0, 2.0, 8.0]]], dtype=torch.float64)
    quantizer = LevelQuantizer(bits=torch.tensor([[2]]), levels=levels)
    y = torch.tensor([[[0.0], [1.5], [5.0], [5.000001]]], dtype=torch.float64)
    assert quantizer.codes(y).flatten().tolist() == [0, 1, 2, 3]


def test_a_coordinate_without_bits_gives_its_mean(bank, allocations):
    quantizer = fit_levels(bank, allocations(bank, average=1.0, split=3))
    without = quantizer.bits == 0
    assert without.any()
    found = quantizer.decode(quantizer.encode(bank))
    means = bank.mean(1).to(torch.float32).to(torch.float64)
    for head in range(3):
        expected = means[head, without[head]].expand(bank.shape[1], -1)
        assert torch.equal(found[head][:, without[head]], expected)


def test_levels_that_coincide_decode_to_themselves():
    levels = torch.tensor([[[0.5, 0.5, 0.5, 2.0]]], dtype=torch.float64)
    quantizer = LevelQuantizer(bits=torch.tensor([[2]]), levels=levels)
    y = torch.tensor([[[0.4], [0.5], [0.6], [9.0]]], dtype=torch.float64)
    found = quantizer.decode(quantizer.encode(y))
    assert found.flatten().tolist() == [0.5, 0.5, 0.5, 2.0]
    assert torch.equal(quantizer.decode(quantizer.encode(found)), found)


def test_batch_axes(bank, allocations):
    quantizer = fit_levels(bank, allocations(bank))
    batch = torch.stack([bank, -bank, 2 * bank]).unsqueeze(1)
    rows = quantizer.encode(batch)
    assert rows.shape == (3, 1, 3, 203, quantizer.bytes)
    for i, sign in enumerate((1, -1, 2)):
        assert torch.equal(rows[i, 0], quantizer.encode(sign * bank))
    assert torch.equal(quantizer.decode(rows)[2, 0], quantizer.decode(rows[2, 0]))


def test_no_rows():
    quantizer = LevelQuantizer(bits=BITS, levels=table(BITS))
    rows = quantizer.encode(torch.zeros(2, 3, 0, 5, dtype=torch.float64))
    assert rows.shape == (2, 3, 0, quantizer.bytes)
    assert quantizer.decode(rows).shape == (2, 3, 0, 5)


def test_what_it_costs():
    quantizer = LevelQuantizer(bits=BITS, levels=table(BITS))
    assert quantizer.bytes == 2  # 16 bits in the widest head
    assert quantizer.side_bytes == 0
    assert quantizer.table_bytes == 4 * int((2**BITS).sum()) == 4 * int(quantizer.levels.isfinite().sum())


def test_levels_are_what_float32_holds():
    quantizer = LevelQuantizer(bits=BITS, levels=table(BITS))
    assert quantizer.levels.dtype == torch.float64
    assert torch.equal(quantizer.levels, quantizer.levels.to(torch.float32).to(torch.float64))
    again = LevelQuantizer(bits=BITS, levels=quantizer.levels.to(torch.float32))
    assert torch.equal(again.levels, quantizer.levels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_coarser_vectors_are_widened(dtype):
    quantizer = LevelQuantizer(bits=BITS, levels=table(BITS))
    y = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(2)).to(dtype)
    assert torch.equal(quantizer.encode(y), quantizer.encode(y.double()))


def test_moving_keeps_the_table():
    quantizer = LevelQuantizer(bits=BITS, levels=table(BITS))
    moved = quantizer.to("cpu")
    y = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.equal(moved.encode(y), quantizer.encode(y))
    assert torch.equal(moved.levels, quantizer.levels)


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("bits", "levels"),
    [
        ([[1]], [[[1.0, 0.0]]]),
        ([[1]], [[[0.0, INF]]]),
        ([[1]], [[[0.0, 1.0, 2.0]]]),
        ([[1]], [[[0.0, NAN]]]),
        ([[1]], [[[0.0, NAN, 1.0]]]),
        ([[1]], [[[-INF, 0.0, 1.0]]]),
        ([[1, 0]], [[[0.0, 1.0], [-INF, 3.0]]]),
        ([[1]], [[[0.0, 1e39]]]),
        ([[2]], [[[0.0, 1.0]]]),
    ],
)
def test_a_table_that_is_none_is_an_error(bits, levels):
    with pytest.raises(RotcheckError, match=r"needs 2\*\*bits finite levels per coordinate, ascending"):
        LevelQuantizer(bits=torch.tensor(bits), levels=torch.tensor(levels, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(2, 1, 2), (1, 3, 2), (1, 2), (1, 2, 1, 2)])
def test_a_table_of_another_shape_is_an_error(shape):
    with pytest.raises(RotcheckError, match=r"levels \(.*\) do not fit bits \(1, 2\)"):
        LevelQuantizer(bits=torch.tensor([[1, 1]]), levels=torch.zeros(shape, dtype=torch.float64))


def test_negative_bits_are_an_error():
    with pytest.raises(RotcheckError, match="a coordinate has -1 bits: use 0 to 8"):
        LevelQuantizer(bits=torch.tensor([[1, -1]]), levels=torch.zeros(1, 2, 2, dtype=torch.float64))
