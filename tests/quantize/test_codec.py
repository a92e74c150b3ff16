"""The codec as a whole: shapes, bytes, degenerate sizes and refusals."""

from __future__ import annotations

import pytest
import torch

from rotcheck.errors import RotcheckError
from rotcheck.quantize import Codec, fit_levels, two_regimes, uniform_bits
from rotcheck.quantize.minmax import regime_ranges
from rotcheck.quantize.sketch import gaussian_sketch


def test_a_round_trip_keeps_most_of_the_energy(case, error):
    """Three bits per coordinate; a sketch trades error for unbiased scores."""
    rows = case.codec.encode(case.rows)
    found = case.codec.decode(rows)
    assert rows.dtype == torch.uint8
    assert rows.shape == (3, 203, case.codec.bytes)
    assert found.dtype == torch.float64
    assert found.shape == case.rows.shape
    assert error(found, case.rows) < (0.5 if case.signs else 0.35)


def test_where_the_bytes_go(case):
    codes = -(-int(case.codec.bits.sum(1).max()) // 8)
    ranges = 8 if case.scalar == "min-max" else 0
    sketch = case.signs // 8 + 2 if case.signs else 0
    assert case.codec.side_bytes == ranges + 2 * case.normalize + sketch
    assert case.codec.bytes == codes + case.codec.side_bytes
    projections = 3 * case.signs * 11 * 4
    assert case.codec.table_bytes == case.codec.scalar.table_bytes + projections


def test_every_byte_is_read(case):
    """Turn any one of them over and the vector changes: nothing is stored that reconstruction does not need."""
    subject = case.make(case.rows, allocations=[uniform_bits(11, 32)] * 3)
    rows = subject.encode(case.rows[:, :1])
    before = subject.decode(rows)
    for place in range(subject.bytes):
        other = rows.clone()
        other[..., place] ^= 1
        assert not torch.equal(subject.decode(other), before), f"byte {place} is never read"


@pytest.mark.parametrize(("heads", "d"), [(1, 1), (2, 1), (1, 3), (3, 2)])
def test_degenerate_sizes(heads, d, case, rows):
    """No row, one and two; one head, whose single row is a slice at an odd place in its storage."""
    samples = rows("shifted", heads=heads, n=50, d=d)
    subject = case.make(samples, allocations=[uniform_bits(d, 3 * d)] * heads)
    for n in range(3):
        found = subject.encode(samples[:, :n])
        assert found.shape == (heads, n, subject.bytes)
        decoded = subject.decode(found)
        assert decoded.shape == (heads, n, d)
        assert decoded.isfinite().all()


@pytest.mark.parametrize("split", [1, 10])
def test_regimes_of_one_coordinate_are_finite(split, case):
    """The deviation of a single coordinate is no number where it is divided by n - 1."""
    given = [two_regimes(head.var(0).tolist(), split, 33) for head in case.rows]
    subject = case.make(case.rows, allocations=given)
    assert subject.decode(subject.encode(case.rows)).isfinite().all()
    assert given[0].total == 33


def test_zero_vectors(case):
    zeros = torch.zeros(3, 4, 11, dtype=torch.float64)
    found = case.codec.decode(case.codec.encode(zeros))
    assert found.isfinite().all()
    if case.normalize and not case.signs:
        assert found.eq(0).all()


def test_a_vector_shorter_than_float16_holds_is_zero(bank, codec):
    subject = codec(bank, normalize=True)
    tiny = 1e-10 * bank / bank.norm(dim=-1, keepdim=True)
    assert subject.decode(subject.encode(tiny)).eq(0).all()


def test_the_sketch_sees_what_the_codes_leave(bank, codec):
    """Decoded scalar codes plus the decoded sketch of the difference, nothing else."""
    with_sketch, without = codec(bank, signs=16), codec(bank)
    plain = without.decode(without.encode(bank))
    sketch = with_sketch.sketch
    expected = plain + sketch.decode(sketch.encode(bank - plain))
    assert torch.equal(with_sketch.decode(with_sketch.encode(bank)), expected)


def test_scores_with_a_sketch_are_right_on_average(rows, codec):
    """``q . y_hat`` over draws of the projections: mean ``q . y`` although the scalar codes alone are off."""
    samples = rows("spiked", heads=1, n=203, d=11)
    given = [uniform_bits(11, 11)]
    scalar = fit_levels(samples, given)
    y, query = samples[:, :1], samples[0, 1]
    scores = []
    for seed in range(256):
        subject = Codec(scalar=scalar, sketch=gaussian_sketch(1, 16, 11, seed=seed))
        scores.append(subject.decode(subject.encode(y))[0, 0] @ query)
    scores = torch.stack(scores)
    alone = scalar.decode(scalar.encode(y))[0, 0] @ query
    truth = y[0, 0] @ query
    deviation = scores.std() / 16
    assert abs(scores.mean() - truth) < 5 * deviation + 2**-11 * abs(truth - alone)
    assert abs(alone - truth) > 5 * deviation


def test_coarser_vectors_are_widened(case):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        y = case.rows[:, :20].to(dtype)
        assert torch.equal(case.codec.encode(y), case.codec.encode(y.double()))


def test_vectors_are_not_written_to(case):
    before = case.rows.clone()
    case.codec.decode(case.codec.encode(case.rows))
    assert torch.equal(case.rows, before)


def test_moving_keeps_the_codec(case):
    moved = case.codec.to("cpu")
    assert torch.equal(moved.encode(case.rows), case.codec.encode(case.rows))
    assert (moved.bytes, moved.normalize) == (case.codec.bytes, case.codec.normalize)


def test_a_vector_that_is_not_finite_is_an_error(case):
    for bad in (float("nan"), float("inf"), -float("inf")):
        y = case.rows.clone()
        y[2, 5, 3] = bad
        with pytest.raises(RotcheckError, match="has NaN or infinite entries: look at the model before the cache"):
            case.codec.encode(y)


@pytest.mark.parametrize("shape", [(), (11,), (3, 11), (2, 5, 11), (3, 5, 10), (3, 4, 5, 11)])
def test_vectors_of_another_shape_are_an_error(shape, rows, codec):
    with pytest.raises(RotcheckError, match="do not fit a codec for 3 heads of 11 coordinates"):
        codec(rows("spiked")).encode(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize(
    "change", [lambda r: r[..., :-1], lambda r: r[:2], lambda r: r[0], lambda r: r.to(torch.int32)]
)
def test_rows_that_it_did_not_write_are_an_error(change, rows, codec):
    subject = codec(rows("spiked"), normalize=True)
    written = subject.encode(rows("spiked"))
    with pytest.raises(RotcheckError, match=rf"writes {subject.bytes} bytes \(torch.uint8\) for each of 3 heads"):
        subject.decode(change(written))


@pytest.mark.parametrize(("heads", "width"), [(2, 11), (3, 12)])
def test_a_sketch_for_other_vectors_is_an_error(heads, width, bank, codec):
    scalar = codec(bank).scalar
    with pytest.raises(RotcheckError, match=rf"a sketch for \({heads}, {width}\) does not fit codes for \(3, 11\)"):
        Codec(scalar=scalar, sketch=gaussian_sketch(heads, 8, width, seed=0))


def test_a_norm_beyond_float16_is_an_error(bank, codec):
    with pytest.raises(RotcheckError, match=r"the norm of a vector of .* does not fit into float16"):
        codec(bank, normalize=True).encode(1e6 * bank)


def test_a_range_beyond_float16_is_an_error(bank):
    subject = Codec(scalar=regime_ranges([uniform_bits(11, 33)] * 3, torch.zeros(3, 11)))
    with pytest.raises(RotcheckError, match=r"the range of a group of .* does not fit into float16"):
        subject.encode(1e6 * bank)
