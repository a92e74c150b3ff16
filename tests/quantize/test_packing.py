"""Codes of any mixture of widths come back from bytes without gaps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.errors import RotcheckError
from rotcheck.quantize.packing import layout, pack, pack_bits, pack_halves, unpack, unpack_bits, unpack_halves


def banks():
    """Bits of 1 to 4 heads of 1 to 12 coordinates, each 0 to 8, at least one of them positive."""
    shape = st.tuples(st.integers(1, 4), st.integers(1, 12))
    lists = shape.flatmap(
        lambda s: st.lists(st.lists(st.integers(0, 8), min_size=s[1], max_size=s[1]), min_size=s[0], max_size=s[0])
    )
    return lists.filter(lambda rows: any(map(any, rows))).map(torch.tensor)


def codes_for(bits, n, seed, batch=()):
    generator = torch.Generator().manual_seed(seed)
    some = torch.randint(0, 2**8, (*batch, len(bits), n, bits.shape[1]), generator=generator)
    return some % 2 ** bits.unsqueeze(-2)


@settings(deadline=None, max_examples=120)
@given(bits=banks(), n=st.integers(0, 5), seed=st.integers(0, 2**31))
def test_what_goes_in_comes_out(bits, n, seed):
    places, codes = layout(bits), codes_for(bits, n, seed)
    rows = pack(codes, places)
    assert rows.dtype == torch.uint8
    assert rows.shape == (len(bits), n, -(-int(bits.sum(1).max()) // 8))
    assert rows.shape[-1] == places.bytes
    assert torch.equal(unpack(rows, places), codes)


@settings(deadline=None, max_examples=60)
@given(bits=banks(), seed=st.integers(0, 2**31))
def test_bits_follow_one_another(bits, seed):
    """As a stream, lowest bit first: written out bit by bit, with zeros behind the last code."""
    places, codes = layout(bits), codes_for(bits, 2, seed)
    stream = unpack_bits(pack(codes, places))
    for head, widths in enumerate(bits.tolist()):
        for n in range(2):
            written = [int(codes[head, n, i]) >> s & 1 for i, width in enumerate(widths) for s in range(width)]
            written += [0] * (8 * places.bytes - len(written))
            assert stream[head, n].tolist() == written


@settings(deadline=None, max_examples=40)
@given(bits=banks(), seed=st.integers(0, 2**31))
def test_the_largest_codes_disturb_no_neighbour(bits, seed):
    places = layout(bits)
    largest = (2**bits - 1).unsqueeze(1)
    assert torch.equal(unpack(pack(largest, places), places), largest)
    alone = torch.zeros_like(largest)
    chosen = seed % bits.shape[1]
    alone[..., chosen] = largest[..., chosen]
    assert torch.equal(unpack(pack(alone, places), places), alone)


@settings(deadline=None, max_examples=40)
@given(bits=banks(), seed=st.integers(0, 2**31))
def test_bytes_without_spare_bits_are_all_codes(bits, seed):
    """Unpacking any bytes and packing them again changes only the bits behind the last code."""
    places = layout(bits)
    rows = torch.randint(0, 256, (len(bits), 3, places.bytes), generator=torch.Generator().manual_seed(seed))
    rows = rows.to(torch.uint8)
    again = pack(unpack(rows, places), places)
    for head, used in enumerate(bits.sum(1).tolist()):
        assert torch.equal(unpack_bits(again[head])[:, :used], unpack_bits(rows[head])[:, :used])
        assert not unpack_bits(again[head])[:, used:].any()


def test_batch_axes_are_just_more_rows():
    bits = torch.tensor([[3, 0, 5, 1], [8, 8, 0, 7]])
    codes = codes_for(bits, 5, 0, batch=(2, 3))
    places = layout(bits)
    rows = pack(codes, places)
    assert rows.shape == (2, 3, 2, 5, 3)
    assert torch.equal(unpack(rows, places), codes)
    for batch in range(2):
        for beam in range(3):
            assert torch.equal(rows[batch, beam], pack(codes[batch, beam], places))
    turned = codes.transpose(0, 1)
    assert torch.equal(pack(turned, places), rows.transpose(0, 1))


def test_heads_of_other_totals_share_the_longest_row():
    bits = torch.tensor([[1, 1, 1], [8, 8, 1], [0, 0, 0]])
    places = layout(bits)
    assert places.bytes == 3
    rows = pack((2**bits - 1).unsqueeze(1), places)
    assert rows[:, 0].tolist() == [[7, 0, 0], [255, 255, 1], [0, 0, 0]]


@pytest.mark.parametrize("bits", [[[8]], [[0, 0, 8]], [[8, 0, 0]], [[0, 1, 0]], [[7, 8, 8, 1, 0]]])
def test_codes_at_the_ends_of_a_row(bits):
    bits = torch.tensor(bits)
    places = layout(bits)
    largest = (2**bits - 1).unsqueeze(1)
    assert torch.equal(unpack(pack(largest, places), places), largest)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.float64])
def test_codes_of_any_dtype(dtype):
    bits = torch.tensor([[2, 8, 3]])
    codes = torch.tensor([[[3, 255, 5]]])
    assert torch.equal(unpack(pack(codes.to(dtype), layout(bits)), layout(bits)), codes)


@pytest.mark.parametrize("bad", [4, 256, -1])
def test_a_code_that_does_not_fit_is_an_error(bad):
    codes = torch.tensor([[[1, bad, 1]]])
    with pytest.raises(RotcheckError, match=r"a code is below 0 or above 2\*\*bits - 1"):
        pack(codes, layout(torch.tensor([[2, 2, 2]])))


@pytest.mark.parametrize("worst", [-1, 9, 200])
def test_a_number_of_bits_that_no_code_has_is_an_error(worst):
    with pytest.raises(RotcheckError, match=f"a coordinate has {worst} bits: use 0 to 8"):
        layout(torch.tensor([[3, worst]]))


@pytest.mark.parametrize("bits", [torch.tensor([[0, 0], [0, 0]]), torch.zeros(2, 0, dtype=torch.long)])
def test_no_bit_at_all_is_an_error(bits):
    with pytest.raises(RotcheckError, match="no coordinate has a bit: give at least 1"):
        layout(bits)


@pytest.mark.parametrize(
    "bits", [torch.tensor([3, 2]), torch.tensor([[3.0]]), torch.tensor([[True]]), torch.zeros(0, 3, dtype=torch.long)]
)
def test_bits_that_are_no_table_of_integers_are_an_error(bits):
    with pytest.raises(RotcheckError, match="bits must be integers"):
        layout(bits)


def test_a_layout_moves_whole():
    places = layout(torch.tensor([[3, 8, 1]]))
    moved = places.to("cpu")
    assert moved.bytes == places.bytes == 2
    assert torch.equal(moved.start, places.start)
    assert torch.equal(moved.shift, places.shift)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), m=st.integers(0, 6), n=st.integers(0, 4))
def test_signs_round_trip(seed, m, n):
    signs = torch.randint(0, 2, (2, n, 8 * m), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(unpack_bits(pack_bits(signs)), signs)
    assert torch.equal(pack_bits(signs.bool()), pack_bits(signs))


def test_halves_round_trip_and_rounding():
    values = torch.tensor([[0.0, 1.0, -2.5, 65504.0, 2.0**-24, 1e-9, 3.14159265]], dtype=torch.float64)
    rows = pack_halves(values, "a number")
    assert rows.shape == (1, 14)
    found = unpack_halves(rows)
    limit = torch.maximum(2.0**-11 * values.abs(), torch.tensor(2.0**-25))
    assert ((found - values).abs() <= limit).all()
    assert torch.equal(pack_halves(found, "a number"), rows)
    assert pack_halves(values[:0], "a number").shape == (0, 14)


def test_a_number_beyond_float16_is_an_error():
    with pytest.raises(RotcheckError, match=r"the norm of 7e\+04 does not fit into float16 \(65504\)"):
        pack_halves(torch.tensor([1.0, -7e4]), "the norm")
