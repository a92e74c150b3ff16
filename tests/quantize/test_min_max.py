"""Ranges that travel with each vector: at most half a step of error, and honest side information."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.errors import RotcheckError
from rotcheck.quantize import MinMaxQuantizer, fixed_regimes, uniform_bits, water_filling
from rotcheck.quantize.minmax import regime_ranges


def quantizer(bits, group, centre=None):
    bits, group = torch.tensor(bits), torch.tensor(group)
    centre = torch.zeros(bits.shape, dtype=torch.float64) if centre is None else centre
    return MinMaxQuantizer(bits=bits, group=group, centre=centre)


def halved(values):
    return values.to(torch.float16).to(torch.float64)


def limits(subject, y):
    """Largest error of each coordinate, ``max(r' / (2 (2**b - 1)), |a - a'| + |r - r'|)``."""
    found = torch.zeros_like(y)
    for head in range(len(subject.bits)):
        for g in range(subject.groups):
            members = (subject.group[head] == g) & (subject.bits[head] > 0)
            if members.any():
                inside = y[..., head, :, :][..., members]
                low, span = inside.amin(-1, keepdim=True), inside.amax(-1, keepdim=True) - inside.amin(-1, keepdim=True)
                steps = halved(span) / (2.0 ** subject.bits[head, members] - 1)
                rounding = (low - halved(low)).abs() + (span - halved(span)).abs()
                found[..., head, :, members] = torch.maximum(steps / 2, rounding)
    return found


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 6),
    bits=st.lists(st.integers(1, 8), min_size=7, max_size=7),
    mean=st.sampled_from([0.0, 3.0, -900.0]),
    scale=st.sampled_from([1e-3, 1.0, 2000.0]),
)
def test_at_most_half_a_step(seed, n, bits, mean, scale):
    generator = torch.Generator().manual_seed(seed)
    subject = quantizer([bits, bits[::-1]], torch.randint(0, 2, (2, 7), generator=generator).tolist())
    y = mean + scale * torch.randn(3, 2, n, 7, generator=generator, dtype=torch.float64)
    found = subject.decode(subject.encode(y))
    # the differences above are of float64 numbers up to |mean| + 10 scale
    slack = 2**-50 * (abs(mean) + 10 * scale)
    assert ((found - y).abs() <= limits(subject, y) + slack).all()


def test_the_bound_is_attained():
    """Not a loose one: somewhere the error is more than 0.49 steps, and never more than half of one."""
    subject = quantizer([[3] * 6], [[0] * 6])
    y = torch.randn(1, 4001, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ratio = (subject.decode(subject.encode(y)) - y).abs() / limits(subject, y)
    assert 0.99 < ratio.max() <= 1 + 1e-9


def test_a_mean_eats_the_range_as_documented():
    """One unit wide around 1000, where halves are half a unit apart: up to a quarter of a unit is lost."""
    subject = quantizer([[8] * 5], [[0] * 5])
    y = 1000 + torch.rand(1, 301, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    worst = (subject.decode(subject.encode(y)) - y).abs().max()
    assert 0.2 < worst <= 0.25 + 2**-11
    centred = y - 1000.5
    assert (subject.decode(subject.encode(centred)) - centred).abs().max() < 0.003


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_use_both_ends(bits):
    subject = quantizer([[bits] * 6], [[0] * 6])
    y = torch.tensor([[[-3.0, 5.0, 0.0, 1.0, 2.0, -1.0]]], dtype=torch.float64)
    found = subject.decode(subject.encode(y))
    assert found.amin() == -3
    # halves hold -3 and 8; the last step ends where float64 puts -3 + (8 / levels) levels
    assert abs(found.amax() - 5) <= 8 * 2**-52


@pytest.mark.parametrize("value", [0.0, 1.5, -700.0, 2.0**-20])
def test_a_constant_group_is_exact_in_float16(value):
    subject = quantizer([[3, 3, 3, 8]], [[0, 0, 0, 0]])
    y = torch.full((1, 2, 4), value, dtype=torch.float64)
    assert torch.equal(subject.decode(subject.encode(y)), y)


def test_a_constant_group_is_rounded_like_float16():
    subject = quantizer([[3, 3, 3]], [[0, 0, 0]])
    y = torch.full((1, 1, 3), 0.1, dtype=torch.float64)
    assert torch.equal(subject.decode(subject.encode(y)), halved(y))


def test_one_coordinate_in_a_group_is_its_own_range():
    subject = quantizer([[2, 5]], [[0, 1]])
    y = torch.tensor([[[0.3, -40.7]]], dtype=torch.float64)
    assert torch.equal(subject.decode(subject.encode(y)), halved(y))


def test_a_coordinate_without_bits_gives_its_centre():
    centre = torch.tensor([[1.0, -2.0, 0.1, 7.0]], dtype=torch.float64)
    subject = quantizer([[3, 0, 0, 4]], [[0, 5, -3, 0]], centre)
    y = torch.tensor([[[2.0, 1e9, -1e9, 4.0]]], dtype=torch.float64)
    found = subject.decode(subject.encode(y))[0, 0]
    assert found[1] == -2.0
    assert found[2] == torch.tensor(0.1).double()
    assert found[[0, 3]].tolist() == [2.0, 4.0]
    assert subject.table_bytes == 8
    assert subject.bytes == 1 + 4


def test_a_group_that_a_head_lacks_costs_its_bytes_all_the_same():
    subject = quantizer([[2, 2, 2], [2, 2, 0]], [[0, 0, 1], [0, 0, 1]])
    assert subject.groups == 2
    assert subject.side_bytes == 8
    assert subject.bytes == 1 + 8
    y = torch.tensor([[[1.0, 4.0, -9.0]], [[2.0, 8.0, 30.0]]], dtype=torch.float64)
    rows = subject.encode(y)
    assert subject.decode(rows).tolist() == [[[1.0, 4.0, -9.0]], [[2.0, 8.0, 0.0]]]
    assert not rows[1, 0, [3, 4, 7, 8]].any()  # low and range of the group that is not there: lows, then ranges


@pytest.mark.parametrize(
    ("low", "high", "worst"), [(-4e4, 4e4, r"8e\+04"), (7e4, 7.1e4, r"7e\+04"), (-1e9, 0.0, r"1e\+09")]
)
def test_a_range_beyond_float16_is_an_error(low, high, worst):
    subject = quantizer([[3, 3]], [[0, 0]])
    with pytest.raises(RotcheckError, match=rf"the range of a group of {worst} does not fit into float16"):
        subject.encode(torch.tensor([[[low, high]]], dtype=torch.float64))


def test_rows_do_not_know_each_other():
    subject = quantizer([[3, 5, 2, 8]] * 2, [[0, 0, 1, 1]] * 2)
    y = torch.randn(5, 2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y[2, 1, 3] *= 1e4
    rows = subject.encode(y)
    for batch in range(5):
        assert torch.equal(rows[batch], subject.encode(y[batch]))
        assert torch.equal(rows[batch, :, 2:3], subject.encode(y[batch, :, 2:3]))


def test_no_rows():
    subject = quantizer([[3, 5]], [[0, 1]])
    rows = subject.encode(torch.zeros(4, 1, 0, 2, dtype=torch.float64))
    assert rows.shape == (4, 1, 0, subject.bytes)
    assert subject.decode(rows).shape == (4, 1, 0, 2)


def test_regimes_have_a_range_each(bank, allocations):
    given = allocations(bank)
    subject = regime_ranges(given, bank.mean(1))
    assert subject.groups == 2
    assert subject.bits.tolist() == [list(a.bits) for a in given]
    for head, allocation in enumerate(given):
        assert subject.group[head].tolist() == [int(i >= allocation.split) for i in range(11)]


@pytest.mark.parametrize(
    ("given", "groups"),
    [
        (uniform_bits(5, 12), 1),
        (fixed_regimes(5, 2, high=4, low=0), 1),
        (fixed_regimes(5, 2, high=4, low=1), 2),
        (water_filling([9.0, 4.0, 1.0, 1e-9, 0.0], 9), 1),
        (water_filling([0.0, 1e-9, 4.0, 9.0, 1.0], 9), 1),
    ],
)
def test_how_many_ranges(given, groups):
    subject = regime_ranges([given], torch.zeros(1, 5))
    assert subject.groups == groups
    assert subject.side_bytes == 4 * groups
    y = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert subject.decode(subject.encode(y)).isfinite().all()


def test_water_filling_under_one_range_is_worse_than_equal_bits(rows, error):
    """Why `regime_ranges` advises two regimes."""
    bank = rows("plain", heads=1, n=101, d=64)
    variances = bank[0].var(0).tolist()
    found = {}
    for allocation in (uniform_bits(64, 192), water_filling(variances, 192)):
        subject = regime_ranges([allocation], torch.zeros(1, 64))
        found[allocation.method] = error(subject.decode(subject.encode(bank)), bank)
    assert found["water-filling"] > 1.5 * found["uniform"]


def test_heads_may_split_elsewhere():
    given = [fixed_regimes(5, 1, high=4, low=2), uniform_bits(5, 15)]
    subject = regime_ranges(given, torch.zeros(2, 5))
    assert subject.group.tolist() == [[0, 1, 1, 1, 1], [0, 0, 0, 0, 0]]
    assert subject.groups == 2


@pytest.mark.parametrize(("group", "says"), [([1, 1], r"\[1\]"), ([0, 2], r"\[0, 2\]"), ([-1, 0], r"\[-1, 0\]")])
def test_groups_with_gaps_are_an_error(group, says):
    with pytest.raises(RotcheckError, match=f"groups with bits are numbered {says}: number them from 0"):
        quantizer([[2, 2]], [group])


def test_shapes_that_differ_are_an_error():
    with pytest.raises(RotcheckError, match=r"must have one shape .*\(1, 2\), \(1, 3\), \(1, 2\)"):
        quantizer([[2, 2]], [[0, 0, 0]], torch.zeros(1, 2))


def test_no_bits_are_an_error():
    with pytest.raises(RotcheckError, match="no coordinate has a bit"):
        quantizer([[0, 0]], [[0, 0]])


def test_a_centre_that_is_not_finite_is_an_error():
    with pytest.raises(RotcheckError, match="a centre is not finite"):
        quantizer([[2, 0]], [[0, 0]], torch.tensor([[0.0, float("nan")]]))


def test_moving_keeps_everything():
    subject = quantizer([[3, 0, 5]], [[0, 0, 1]], torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64))
    moved = subject.to("cpu")
    y = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(moved.encode(y), subject.encode(y))
    assert torch.equal(moved.decode(subject.encode(y)), subject.decode(subject.encode(y)))
