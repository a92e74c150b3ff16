"""From calibration and settings to the path of every layer: seeds, bits, tables and what they cost."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck import RotcheckError
from rotcheck.quantize import LevelQuantizer, MinMaxQuantizer, water_filling
from rotcheck.spectral import CacheCalibration, CacheCodec, Settings, build_codec, head_axes
from rotcheck.spectral.build import allocate, fit_codec

SEEDS = st.integers(0, 2**31)


@pytest.fixture(scope="module")
def calibration_of(rows_of, statistics_of, calibrated):
    """Two layers: keys of 2 heads of 7, values of 3 heads of 5."""

    def make(seed=0, **fields):
        keys = tuple(statistics_of(rows_of(seed + i, width=7, **fields)) for i in range(2))
        values = tuple(statistics_of(rows_of(seed + 10 + i, heads=3, width=5, **fields)) for i in range(2))
        return CacheCalibration(keys=keys, values=values, tokens=90, model=calibrated("opt").model)

    return make


def test_every_layer_has_the_path_of_its_own_statistics(calibration_of):
    calibration = calibration_of()
    codec = build_codec(calibration, Settings(bits=3.0))
    for kind in ("keys", "values"):
        for path, statistics in zip(getattr(codec, kind), getattr(calibration, kind), strict=True):
            assert (path.heads, path.width) == (statistics.heads, statistics.width)
            assert torch.equal(path.axes.basis, head_axes(statistics).basis)
            assert torch.equal(path.axes.mean, statistics.moments.mean)
    assert codec.model == calibration.model


def test_values_have_a_basis_of_their_own(codec_of):
    codec = codec_of("llama")
    for keys, values in zip(codec.keys, codec.values, strict=True):
        assert keys.axes.basis.shape == values.axes.basis.shape
        assert (keys.axes.basis - values.axes.basis).norm() > 1


def test_numbers_are_sums_over_layers_and_heads(calibration_of):
    codec = build_codec(calibration_of(), Settings(bits=3.0, codebook="gaussian"))
    numbers = 2 * (2 * 7 + 3 * 5)
    each = 2 * (2 * 3 + 3 * 2)  # 21 bits are 3 bytes, 15 are 2
    assert codec.numbers_per_token == numbers
    assert codec.bytes_per_token == each
    assert codec.payload_bits == 3.0
    assert codec.side_bits == pytest.approx(8 * each / numbers - 3)
    assert codec.fixed_bytes == sum(path.fixed_bytes for path in (*codec.keys, *codec.values))
    for tokens in (1, 1000):
        plain, needed = 2 * numbers * tokens, each * tokens + codec.fixed_bytes
        assert codec.ratio(tokens) == pytest.approx(plain / needed)
        assert codec.ratio(tokens, itemsize=4) == pytest.approx(2 * plain / needed)


def test_lossless_keeps_the_rotations_and_counts_what_it_stores(calibration_of):
    codec = build_codec(calibration_of(), Settings(bits=3.0))
    plain = codec.lossless()
    assert all(path.codec is None for path in (*plain.keys, *plain.values))
    assert all(a.axes is b.axes for a, b in zip(plain.keys, codec.keys, strict=True))
    assert plain.bytes_per_token == 8 * plain.numbers_per_token
    assert (plain.payload_bits, plain.side_bits) == (64.0, 0.0)
    assert plain.settings == codec.settings


@given(
    seed=SEEDS,
    bits=st.integers(1, 16).map(lambda half: half / 2),
    method=st.sampled_from(["water-filling", "two-regimes", "uniform"]),
)
def test_the_budget_is_spent_to_the_bit(seed, bits, method, calibration_of):
    calibration = calibration_of(seed)
    codec = build_codec(calibration, Settings(bits=bits, allocation=method, codebook="gaussian"))
    for kind in ("keys", "values"):
        for path in getattr(codec, kind):
            assert path.codec.bits.sum(1).tolist() == [int(bits * path.width)] * path.heads


@given(seed=SEEDS)
def test_values_may_have_bits_of_their_own(seed, calibration_of):
    codec = build_codec(calibration_of(seed), Settings(bits=2.0, value_bits=5.0, codebook="gaussian"))
    assert {int(n) for path in codec.keys for n in path.codec.bits.sum(1)} == {14}
    assert {int(n) for path in codec.values for n in path.codec.bits.sum(1)} == {25}


@given(seed=SEEDS)
def test_named_regimes_are_split_at_the_effective_dimension(seed, calibration_of):
    codec = build_codec(calibration_of(seed), Settings(allocation="5/1", codebook="gaussian", bits=8.0))
    for path in (*codec.keys, *codec.values):
        for row, split in zip(path.codec.bits.tolist(), path.axes.splits, strict=True):
            assert row == [5] * split + [1] * (path.width - split)


@given(seed=SEEDS, centred=st.booleans())
def test_each_head_has_the_bits_of_its_own_coordinates(seed, centred, rows_of, statistics_of):
    """From their variances about the mean, centred or not: the mean costs no bits, because tables hold it."""
    rows = torch.cat([rows_of(seed, heads=1), rows_of(seed + 1, heads=1, mean=30.0) * torch.arange(1, 8) ** 2])
    axes = head_axes(statistics_of(rows), centred=centred)
    codec = fit_codec(axes, rows, Settings(bits=2.0, codebook="gaussian", centred=centred), "keys", seed=0)
    for head in range(2):
        variances = (rows[head] @ axes.basis[head]).var(0, correction=0)
        assert codec.bits[head].tolist() == list(water_filling(variances.tolist(), 14).bits)
    assert codec.bits[0].tolist() != codec.bits[1].tolist()


@given(seed=SEEDS)
def test_bits_follow_the_rows_that_are_coded(seed, rows_of, statistics_of):
    """Of rows whose lengths differ a hundredfold, unit vectors have another spectrum."""
    rows = rows_of(seed)
    rows[:, ::2] *= 100
    axes = head_axes(statistics_of(rows))
    y = (rows - axes.mean.unsqueeze(1)) @ axes.basis
    unit = y / y.norm(dim=-1, keepdim=True)
    for normalize, coded in ((False, y), (True, unit)):
        expected = allocate(coded, axes, Settings(bits=2.0), "keys")
        fields = {"bits": 2.0, "normalize": normalize, "codebook": "gaussian"}
        codec = fit_codec(axes, rows, Settings(**fields), "keys", seed=0)
        assert codec.bits.tolist() == [list(a.bits) for a in expected]
        # levels lie among the numbers that are coded, not a hundred times as far out
        reach = coded.abs().max()
        assert codec.scalar.levels[codec.scalar.levels.isfinite()].abs().max() <= 10 * reach


@pytest.mark.parametrize(
    ("codebook", "kind"), [("coordinate", LevelQuantizer), ("gaussian", LevelQuantizer), ("minmax", MinMaxQuantizer)]
)
def test_tables_hold_what_four_bytes_hold(codebook, kind, calibration_of):
    codec = build_codec(calibration_of(), Settings(bits=1.0, codebook=codebook, sketch=16))
    for path in codec.keys:
        scalar = path.codec.scalar
        assert isinstance(scalar, kind)
        table = scalar.levels if codebook != "minmax" else scalar.centre
        for tensor in (table, path.codec.sketch.projections):
            assert tensor.dtype == torch.float64
            assert torch.equal(tensor.float().double(), tensor)


def test_only_keys_are_sketched(calibration_of):
    codec = build_codec(calibration_of(), Settings(sketch=16))
    assert all(path.codec.sketch.size == 16 for path in codec.keys)
    assert all(path.codec.sketch is None for path in codec.values)


@pytest.mark.parametrize("chosen", [Settings(rotation="haar"), Settings(sketch=16)], ids=str)
def test_seeds_differ_by_layer_and_kind_and_are_reproducible(chosen, statistics_of, rows_of, calibrated):
    statistics = statistics_of(rows_of(0, width=5))
    calibration = CacheCalibration(
        keys=(statistics,) * 2, values=(statistics,) * 2, tokens=90, model=calibrated("opt").model
    )
    one, again = build_codec(calibration, chosen), build_codec(calibration, chosen)
    other = build_codec(calibration, Settings(rotation=chosen.rotation, sketch=chosen.sketch, seed=1))

    def drawn(codec):
        paths = (*codec.keys, *(codec.values if chosen.rotation == "haar" else ()))
        return [p.axes.basis if chosen.rotation == "haar" else p.codec.sketch.projections for p in paths]

    assert all(torch.equal(a, b) for a, b in zip(drawn(one), drawn(again), strict=True))
    everything = [*drawn(one), *drawn(other)]
    assert not any(torch.equal(a, b) for i, a in enumerate(everything) for b in everything[:i])


def test_the_largest_seed_is_taken(calibration_of):
    build_codec(calibration_of(), Settings(rotation="haar", sketch=8, seed=2**63 - 1))


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        (
            Settings(bits=0.1),
            r"^0\.1 bits for each of 7 coordinates of keys are less than 1 bit in total: use at least 0\.143$",
        ),
        (Settings(value_bits=0.15), r"^0\.15 bits for each of 5 coordinates of values are less than 1 bit in total"),
    ],
    ids=["keys", "values"],
)
def test_less_than_a_bit_in_total_is_refused(chosen, says, calibration_of):
    with pytest.raises(RotcheckError, match=says):
        build_codec(calibration_of(), chosen)


def test_one_bit_in_total_is_enough(calibration_of):
    codec = build_codec(calibration_of(), Settings(bits=0.2))
    assert [path.bytes for path in (*codec.keys, *codec.values)] == [1] * 4
    for path in (*codec.keys, *codec.values):
        assert path.codec.bits[:, 0].tolist() == [1] * path.heads


@settings(max_examples=12)
@given(
    seed=SEEDS,
    count=st.integers(2, 5),
    codebook=st.sampled_from(["coordinate", "regime", "gaussian", "uniform", "minmax"]),
)
def test_fewer_rows_than_coordinates_give_a_codec(seed, count, codebook, calibration_of, rows_of):
    """What the rows span is coded; along the other axes there is nothing, and each comes back as it was."""
    calibration = calibration_of(seed, count=count)
    path = build_codec(calibration, Settings(bits=4.0, codebook=codebook, allocation="two-regimes")).keys[0]
    x = calibration.keys[0].rows
    found = path.decode(path.encode(x))
    assert found.isfinite().all()
    assert (found - x).norm() < 0.2 * (x - x.mean(1, keepdim=True)).norm() + 1e-5 * x.norm()


def test_moved_elsewhere(calibration_of):
    codec = build_codec(calibration_of(), Settings(bits=3.0))
    moved = codec.lossless().to("meta")
    assert isinstance(moved, CacheCodec)
    assert {path.axes.basis.device.type for path in (*moved.keys, *moved.values)} == {"meta"}
    assert codec.to("cpu").keys == codec.keys


def test_repr_says_what_it_is(calibration_of):
    codec = build_codec(calibration_of(), Settings(bits=3.0, codebook="gaussian"))
    assert repr(codec) == f"CacheCodec({codec.model}; spectral water-filling 3 bits, gaussian; 24 bytes per token)"
