"""The share of levels that are in use: near one for fitted codebooks, low for those scaled for other data."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rotcheck.quantize.levels import LevelQuantizer
from rotcheck.spectral import Settings, build_codec, calibrate_cache, levels_used
from rotcheck.spectral.calibrate import KINDS


@pytest.fixture(scope="module")
def calibration():
    from rotcheck.models.adversarial import adversarial_batch, adversarial_opt

    model = adversarial_opt(seed=3, layers=2)
    return calibrate_cache(model, [adversarial_batch(model, seed=seed, batch=16, length=24) for seed in range(3)])


def scaled(codec, factor):
    """The same codec with the tables of the keys for data that many times as large."""

    def other(path):
        scalar = path.codec.scalar
        wider = LevelQuantizer(bits=scalar.bits, levels=scalar.levels * factor)
        return replace(path, codec=replace(path.codec, scalar=wider))

    return replace(codec, keys=tuple(map(other, codec.keys)))


@pytest.mark.parametrize("codebook", ["coordinate", "gaussian", "uniform"])
def test_fitted_codebooks_are_used(calibration, codebook):
    for shares in levels_used(build_codec(calibration, Settings(bits=2.0, codebook=codebook)), calibration).values():
        assert shares.mean() > 0.9
        assert (shares > 0).all()
        assert (shares <= 1).all()


@pytest.mark.parametrize("factor", [1e-6, 50.0])
def test_codebooks_for_other_data_are_not(calibration, factor):
    codec = build_codec(calibration, Settings(allocation="uniform", bits=4.0, codebook="gaussian"))
    right, wrong = levels_used(codec, calibration), levels_used(scaled(codec, factor), calibration)
    assert wrong["keys"].mean() < 0.4 < 0.8 < right["keys"].mean()
    torch.testing.assert_close(wrong["values"], right["values"], rtol=0, atol=0)


def test_only_coordinates_with_bits_count(calibration):
    codec = build_codec(calibration, Settings(bits=1.0))
    found = levels_used(codec, calibration)
    for kind in KINDS:
        bits = torch.cat([path.codec.bits.flatten() for path in getattr(codec, kind)])
        assert len(found[kind]) == int((bits > 0).sum()) < len(bits)


@pytest.mark.parametrize("changes", [{"codebook": "minmax"}, {"normalize": True}, {"sketch": 16}, {"centred": False}])
def test_every_kind_of_code_can_be_counted(calibration, changes):
    found = levels_used(build_codec(calibration, Settings(bits=2.0, **changes)), calibration)
    assert all(0.5 < shares.mean() <= 1 for shares in found.values())


def test_without_codes_there_is_nothing_to_count(calibration):
    found = levels_used(build_codec(calibration, Settings(bits=2.0)).lossless(), calibration)
    assert [len(shares) for shares in found.values()] == [0, 0]
