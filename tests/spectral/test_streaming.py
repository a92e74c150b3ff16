"""Fed at once or in pieces, a layer stores the same bytes and gives back the same numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck import RotcheckError
from rotcheck.spectral import Settings, TensorPath, head_axes
from rotcheck.spectral.build import fit_codec
from rotcheck.spectral.cache import SpectralLayer, SpectralSlidingLayer

WINDOW = 5
SETTINGS = {
    "levels": Settings(bits=3.0),
    "norms apart": Settings(bits=3.0, codebook="gaussian", normalize=True),
    "ranges": Settings(bits=3.0, codebook="minmax", allocation="two-regimes"),
    "sketch": Settings(bits=2.0, codebook="uniform", sketch=16, centred=False),
    "turned at random": Settings(bits=2.0, codebook="regime", rotation="haar"),
    "no codes": None,
}
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.fixture(scope="module")
def paths(rows_of, statistics_of):
    """Of keys, 2 heads of 7, and of values, 2 heads of 5."""

    def make(settings, kind, seed, width):
        rows = rows_of(seed, width=width)
        fields = settings or Settings()
        axes = head_axes(statistics_of(rows, rotary=3), fields.rotation, centred=fields.centred, seed=seed)
        codec = fit_codec(axes, rows, fields, kind, seed=seed) if settings else None
        return TensorPath(axes=axes, codec=codec)

    return {name: (make(s, "keys", 0, 7), make(s, "values", 1, 5)) for name, s in SETTINGS.items()}


def states(seed, batch, tokens, dtype):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, 2, tokens, width) for width in (7, 5))
    return tuple((2 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype) for shape in shapes)


def close(found, expected):
    """One float64 product of another shape differs by rounding, and what is made of it by a last place at most."""
    eps = torch.finfo(expected.dtype).eps
    limit = 64 * torch.finfo(torch.float64).eps * expected.abs().max().double() + eps * expected.abs().double()
    return bool(((found.double() - expected.double()).abs() <= limit).all())


@pytest.mark.parametrize("name", SETTINGS)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 3),
    pieces=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    dtype=st.sampled_from(sorted(DTYPES)),
)
def test_any_split_gives_the_same(name, seed, batch, pieces, dtype, paths):
    tokens = sum(pieces)
    keys, values = states(seed, batch, tokens, DTYPES[dtype])
    whole, parts = SpectralLayer(*paths[name]), SpectralLayer(*paths[name])
    at_once = whole.update(keys, values)
    assert [t.shape for t in at_once] == [keys.shape, values.shape]
    assert {t.dtype for t in at_once} == {DTYPES[dtype]}
    start = 0
    for count in pieces:
        part = (t[:, :, start : start + count] for t in (keys, values))
        found = parts.update(*part)
        start += count
        for one, two in zip(found, at_once, strict=True):
            assert one.dtype == two.dtype
            assert close(one, two[:, :, :start])
    assert parts.get_seq_length() == whole.get_seq_length() == tokens
    assert (whole.calls, parts.calls) == (1, len(pieces))
    if name != "no codes":  # these are float64 numbers, and differ by rounding
        assert torch.equal(parts.keys, whole.keys)
        assert torch.equal(parts.values, whole.values)


@pytest.mark.parametrize("name", ["levels", "ranges", "no codes"])
@given(seed=st.integers(0, 2**31), pieces=st.lists(st.integers(1, 7), min_size=1, max_size=6))
def test_a_window_slides_over_bytes(name, seed, pieces, paths):
    """Stored: the last ``window - 1`` tokens. Given back: as many from before, and all new ones."""
    tokens = sum(pieces)
    keys, values = states(seed, 2, tokens, torch.float32)
    exact = SpectralLayer(*paths[name]).update(keys, values)
    layer, start = SpectralSlidingLayer(*paths[name], sliding_window=WINDOW), 0
    for count in pieces:
        found = layer.update(*(t[:, :, start : start + count] for t in (keys, values)))
        first = max(0, start - WINDOW + 1)
        start += count
        for one, two in zip(found, exact, strict=True):
            assert close(one, two[:, :, first:start])
        assert layer.keys.shape[2] == min(start, WINDOW - 1)
        assert layer.get_seq_length() == start
    if name != "no codes":
        assert torch.equal(layer.keys, paths[name][0].encode(keys)[:, :, -WINDOW + 1 :])


@pytest.mark.parametrize("name", SETTINGS)
@given(seed=st.integers(0, 2**31))
def test_rows_of_a_batch_are_coded_by_themselves(name, seed, paths):
    keys, values = states(seed, 3, 4, torch.float32)
    together = SpectralLayer(*paths[name]).update(keys, values)
    for row in range(3):
        alone = SpectralLayer(*paths[name]).update(keys[row : row + 1], values[row : row + 1])
        for one, two in zip(alone, together, strict=True):
            assert close(one, two[row : row + 1])


@pytest.mark.parametrize("name", SETTINGS)
def test_new_tokens_come_back_coded_too(name, paths):
    """Were the prompt returned exact, one token at a time would give something else."""
    keys, values = states(0, 2, 6, torch.float32)
    found = SpectralLayer(*paths[name]).update(keys, values)
    for path, exact, given_back in zip(paths[name], (keys, values), found, strict=True):
        assert torch.equal(given_back, path.decode(path.encode(exact)).float())
        assert torch.equal(given_back, exact) == (name == "no codes")


@pytest.mark.parametrize("kind", ["full", "sliding"])
@pytest.mark.parametrize("which", ["keys", "values"])
def test_what_cannot_be_coded_leaves_the_layer_as_it_was(kind, which, paths):
    pair = paths["levels"]
    layer = SpectralLayer(*pair) if kind == "full" else SpectralSlidingLayer(*pair, sliding_window=WINDOW)
    keys, values = states(0, 2, 3, torch.float32)
    broken = {"keys": keys.clone(), "values": values.clone()}
    broken[which][0, 1, 2, 3] = float("nan")
    with pytest.raises(RotcheckError, match="NaN or infinite"):
        layer.update(broken["keys"], broken["values"])
    assert not layer.is_initialized
    assert layer.calls == 0
    layer.update(keys, values)
    stored = layer.keys.clone(), layer.values.clone()
    with pytest.raises(RotcheckError, match="NaN or infinite"):
        layer.update(broken["keys"], broken["values"])
    assert torch.equal(layer.keys, stored[0])
    assert torch.equal(layer.values, stored[1])
    assert (layer.calls, layer.get_seq_length()) == (1, 3)
