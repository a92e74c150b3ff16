"""cache_reload: what was saved and loaded gives back the same bits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers.cache_utils import DynamicCache

from rotcheck import CacheRotation
from rotcheck.defects import _spectral as planted
from rotcheck.spectral import Settings, build_codec
from rotcheck.spectral.cache import SpectralLayer
from rotcheck.subjects.spectral import spectral_cache


def reloading(found, codec, layer=SpectralLayer) -> CacheRotation:
    """The right cache that comes back with another codec."""
    return planted.subject(found, reload=lambda: lambda: found.cache(codec, layer), name="subject")


def changed(found, kind, layer, change):
    """The codec with one path replaced."""
    paths = list(getattr(found.codec, kind))
    paths[layer] = change(paths[layer])
    return replace(found.codec, **{kind: tuple(paths)})


def test_our_own_files_give_back_the_same_bits(judge, found):
    subject = spectral_cache(
        found.model, found.calibration, Settings(bits=2.0, codebook="gaussian"), inputs=found.batch
    )
    verdict = judge("cache_reload", subject)
    assert verdict.outcome.value == "passed", str(verdict)
    assert verdict.claim.error == 0.0
    assert verdict.rivals[0].name == "exact keys and values"


@pytest.mark.parametrize(
    ("kind", "layer", "place"), [("keys", 0, "layer 0 head 0 keys"), ("values", 2, "layer 2 head 0 values")]
)
@pytest.mark.parametrize("size", [1e-6, 1e-2])
def test_the_smallest_change_is_seen_and_placed(judge, found, kind, layer, place, size):
    shift = lambda path: planted.with_axes(path, mean=path.axes.mean * (1 + size))  # noqa: E731
    verdict = judge("cache_reload", reloading(found, changed(found, kind, layer, shift)))
    assert (verdict.outcome.value, verdict.place) == ("failed", place)
    assert verdict.headline.startswith(f"subject does not match the same keys and values at {place} ")
    assert "tensor by tensor" in verdict.hint


def test_one_head_is_placed(judge, found):
    def flip(path):
        basis = path.axes.basis.clone()
        basis[1] = basis[1].flip(-1)
        return planted.with_axes(path, basis=basis)

    assert judge("cache_reload", reloading(found, changed(found, "values", 1, flip))).place == "layer 1 head 1 values"


def test_other_bits(judge, found):
    assert (
        judge(
            "cache_reload", reloading(found, build_codec(found.calibration, Settings(bits=4.0, codebook="gaussian")))
        ).claim.error
        > 1e-3
    )


def test_a_plain_cache_is_named(judge, found):
    subject = planted.subject(found, reload=lambda: lambda: DynamicCache(config=found.model.config), name="s")
    assert judge("cache_reload", subject).matched == "exact keys and values"


def test_a_cache_that_loses_nothing_decides_nothing(judge, found):
    make = lambda: DynamicCache(config=found.model.config)  # noqa: E731
    subject = CacheRotation.from_hf(found.model, make, inputs=found.batch, reload=lambda: make)
    verdict = judge("cache_reload", subject)
    assert verdict.outcome.value == "undecided"
    assert verdict.needs == "a cache that loses something"


@pytest.mark.parametrize(
    ("reload", "words"),
    [
        (lambda: 1 / 0, "subject cannot be run: reload of subject raised ZeroDivisionError: division by zero"),
        (lambda: None, "subject reload gives a NoneType, not a function that makes a cache"),
        (lambda: DynamicCache(), "subject reload gives a DynamicCache, not a function that makes a cache"),
        (lambda: lambda: 1 / 0, "subject cannot be run: the reloaded cache of subject raised ZeroDivisionError"),
        (lambda: lambda: "no cache", "subject cannot be run: subject, reloaded raised AttributeError"),
    ],
)
def test_a_loader_that_does_not_work_is_named(judge, right, reload, words):
    assert judge("cache_reload", replace(right, reload=reload, name="subject")).headline.startswith(words)


def test_another_shape_fails(judge, found):
    class Doubled(SpectralLayer):
        def update(self, keys, values, *args, **kwargs):
            return tuple(x.repeat_interleave(2, 1) for x in super().update(keys, values))

    verdict = judge("cache_reload", reloading(found, found.codec, Doubled))
    assert (verdict.outcome.value, verdict.claim.error) == ("failed", float("inf"))


def test_numbers_that_are_not_finite_fail(judge, found):
    class Spoilt(SpectralLayer):
        def update(self, keys, values, *args, **kwargs):
            return tuple(x * float("nan") for x in super().update(keys, values))

    assert judge("cache_reload", reloading(found, found.codec, Spoilt)).outcome.value == "failed"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_equal_bits_in_every_dtype(judge, strangers, make_model, dtype):
    subject = strangers.subject(make_model("llama", 2, dtype), planted.tokens(2))
    assert judge("cache_reload", subject).outcome.value == "passed"


def test_it_needs_a_loader(judge, right):
    assert judge("cache_reload", replace(right, reload=None)).headline == "planted does not supply reload"
