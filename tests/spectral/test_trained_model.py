"""On a trained model the right basis and the right bits pay, and 8 bits change no token."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rotcheck.measures.perplexity import paired_ratio, perplexity
from rotcheck.models.caching import with_cache
from rotcheck.spectral import SpectralCache, TensorPath, attention_errors, spectrum_report
from rotcheck.spectral.build import fit_codec

BITS = {"bits": 2.5, "codebook": "coordinate"}
RANGES = {"codebook": "minmax"}
RIVALS = {"none": {"rotation": "none", "ordered": False}, "haar": {"rotation": "haar", "ordered": False}}


def transposed(codec, calibration):
    """The same codec with rows of the basis for axes, and tables that were fitted to what that gives."""
    paths = {}
    for kind in ("keys", "values"):
        found = []
        for path, statistics in zip(getattr(codec, kind), getattr(calibration, kind), strict=True):
            axes = replace(path.axes, basis=path.axes.basis.mT.contiguous())
            found.append(TensorPath(axes=axes, codec=fit_codec(axes, statistics.rows, codec.settings, kind, seed=0)))
        paths[kind] = tuple(found)
    return replace(codec, **paths)


@pytest.fixture(scope="module")
def errors(trained):
    """Mean error of attention over layers, for every codec that is compared below; its bytes."""
    codecs = {name: trained.codec(allocation=name, **BITS) for name in ("water-filling", "two-regimes", "uniform")}
    for regimes in ("4/2", "3/1"):
        codecs[regimes] = trained.codec(allocation=regimes, **RANGES)
        for name, fields in RIVALS.items():
            codecs[f"{regimes} {name}"] = trained.codec(allocation=regimes, **RANGES, **fields)
        codecs[f"{regimes} transposed"] = transposed(codecs[regimes], trained.calibration)
    found = attention_errors(trained.model, codecs, [trained.windows[:2]])
    return {name: (error.mean().item(), codecs[name].bytes_per_token) for name, error in found.items()}


def test_more_freedom_in_the_bits_is_a_smaller_error_at_equal_bytes(errors):
    """Water-filling over the whole spectrum, two regimes, the same bits everywhere."""
    (best, size), (middle, other), (worst, third) = (errors[n] for n in ("water-filling", "two-regimes", "uniform"))
    assert size == other == third
    assert best < 0.95 * middle
    assert middle < 0.8 * worst


@pytest.mark.parametrize("regimes", ["4/2", "3/1"])
@pytest.mark.parametrize("rival", ["none", "haar", "transposed"])
def test_principal_axes_halve_the_error_at_equal_bytes(regimes, rival, errors):
    error, size = errors[regimes]
    other, other_size = errors[f"{regimes} {rival}"]
    # means are stored for all; the wrong bases cost what the right one costs
    assert size == other_size
    assert error <= other / 2


@pytest.fixture(scope="module")
def prompt(trained):
    """Three rows, two of them left-padded."""
    ids = trained.windows[:, :20].clone()
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    mask[2, :9] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture(scope="module")
def plain(trained, prompt):
    return trained.model.generate(**prompt, max_new_tokens=64, do_sample=False, eos_token_id=None)


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({}, 64),
        ({"codebook": "gaussian"}, 20),
        ({"codebook": "uniform", "centred": False}, 20),
        ({"codebook": "minmax", "allocation": "uniform"}, 20),
    ],
    ids=["default", "gaussian", "uniform", "minmax"],
)
def test_8_bits_keep_the_tokens(fields, steps, trained, prompt, plain):
    cache = SpectralCache(trained.codec(bits=8.0, **fields), trained.model.config)
    found = trained.model.generate(
        **prompt, max_new_tokens=steps, do_sample=False, eos_token_id=None, **with_cache(trained.model, cache)
    )
    assert torch.equal(found, plain[:, : 20 + steps])
    assert cache.calls == (steps,) * 12
    assert cache.stored_bytes == cache.codec.bytes_per_token * 3 * (20 + steps - 1)


def test_one_bit_does_not(trained, prompt, plain):
    """Otherwise the cache is not used."""
    cache = SpectralCache(trained.codec(bits=0.5), trained.model.config)
    found = trained.model.generate(
        **prompt, max_new_tokens=16, do_sample=False, eos_token_id=None, **with_cache(trained.model, cache)
    )
    assert not torch.equal(found, plain[:, : found.shape[1]])


def test_perplexity_hardly_moves_at_two_and_a_half_bits(trained):
    """Beside a random rotation of the same bytes, where it does."""
    windows = [trained.windows[:, :160]]
    full = perplexity(trained.model, windows)

    def ratio(codec):
        def run(ids):
            return trained.model(
                ids, use_cache=True, **with_cache(trained.model, SpectralCache(codec, trained.model.config))
            )

        return paired_ratio(perplexity(run, windows), full).value

    spectral = ratio(trained.codec(allocation="water-filling", **BITS))
    haar = ratio(trained.codec(allocation="water-filling", rotation="haar", **BITS))
    assert abs(spectral - 1) < 0.01
    assert haar - 1 > 2 * abs(spectral - 1)


def test_keys_have_a_few_directions_and_values_more(trained):
    rows = spectrum_report(trained.calibration)
    assert len(rows) == 12 * 2 * 4
    keys, values = ([row.centred for row in rows if row.kind == kind] for kind in ("keys", "values"))
    assert min(keys + values) >= 1
    assert max(keys) < 24 / 2
    assert sum(keys) < 0.6 * sum(values)
    assert all(row.width == 24 and row.tokens == trained.calibration.tokens == 4096 for row in rows)


def test_windows_agree(trained, errors):
    """The error is a property of the codec and the model, and not of a few tokens."""
    codec = trained.codec(allocation="water-filling", **BITS)
    found = attention_errors(trained.model, {"x": codec}, [trained.windows[2:]])["x"].mean().item()
    assert found == pytest.approx(errors["water-filling"][0], rel=0.2)
