"""Saving and loading a compressed cache are inverse to one another, whatever its settings."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.quantize.fitting import CODEBOOKS
from rotcheck.spectral import ALLOCATIONS, Settings, build_codec, calibrate_cache
from rotcheck.spectral.axes import ROTATIONS
from rotcheck.spectral.store import load, save

MODEL = {"hidden_size": 24, "heads": 2, "layers": 2, "ffn_dim": 17, "vocab_size": 29, "max_positions": 32}


@st.composite
def cache_settings(draw):
    fixed = st.sampled_from(("5/1", "4/2", "3/0"))
    return Settings(
        bits=draw(st.floats(0.1, 6.0)),
        value_bits=draw(st.none() | st.floats(0.1, 6.0)),
        rotation=draw(st.sampled_from(ROTATIONS)),
        ordered=draw(st.booleans()),
        centred=draw(st.booleans()),
        allocation=draw(st.sampled_from(ALLOCATIONS) | fixed),
        codebook=draw(st.sampled_from((*CODEBOOKS, "minmax"))),
        normalize=draw(st.booleans()),
        sketch=draw(st.sampled_from((0, 8, 40))),
        seed=draw(st.integers(0, 2**63 - 1)),
    )


@settings(deadline=None, max_examples=20)
@given(wanted=cache_settings(), seed=st.integers(0, 2**20))
def test_load_is_the_inverse_of_save(wanted, seed, tmp_path_factory):
    model = adversarial_opt(seed=seed % 3, **MODEL)
    calibration = calibrate_cache(model, [adversarial_batch(model, seed=seed % 3, batch=7, length=19)])
    codec = build_codec(calibration, wanted)
    with tempfile.TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as place:
        save(codec, Path(place) / "once")
        again = load(Path(place) / "once")
        save(again, Path(place) / "twice")
        for name in ("spectral.json", "spectral.safetensors"):
            assert (Path(place) / "once" / name).read_bytes() == (Path(place) / "twice" / name).read_bytes()
    assert (again.settings, again.model, again.fixed_bytes) == (wanted, codec.model, codec.fixed_bytes)
    x = 2 * torch.randn(3, 2, 5, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for path, other in zip((*codec.keys, *codec.values), (*again.keys, *again.values), strict=True):
        rows = path.encode(x)
        assert torch.equal(other.encode(x), rows)
        assert torch.equal(other.decode(rows), path.decode(rows))
