"""A codec knows the model it was calibrated on, as far as a configuration tells."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest

from rotcheck import RotcheckError
from rotcheck.spectral.identity import identity
from rotcheck.spectral.recorder import text_config

FAMILIES = ("opt", "llama", "phi", "gemma3_text", "gptj", "deepseek_v3")


@pytest.mark.parametrize("family", FAMILIES)
def test_its_own_model_fits_and_every_other_does_not(family, tiny, calibrated):
    found = calibrated(family).model
    for other in FAMILIES:
        config = tiny(other).config
        if other == family:
            found.check(config)
        else:
            with pytest.raises(
                RotcheckError, match=rf"^this cache was calibrated on another model: model type {family}"
            ):
                found.check(config)


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_are_those_that_were_seen(family, calibrated):
    calibration = calibrated(family)
    for kind in ("keys", "values"):
        seen = tuple((statistics.heads, statistics.width) for statistics in getattr(calibration, kind))
        assert getattr(calibration.model, kind) == seen


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("num_hidden_layers", 4, "layers 3"),
        ("hidden_size", 40, "hidden size 48"),
        ("vocab_size", 60, "vocabulary 61"),
        ("num_attention_heads", 2, "num_attention_heads 4"),
        ("num_key_value_heads", 4, "num_key_value_heads 2"),
        ("head_dim", 12, "head_dim 20"),
    ],
)
def test_what_differs_is_named(field, value, what, tiny, calibrated):
    config = copy.deepcopy(tiny("llama").config)
    setattr(config, field, value)
    with pytest.raises(RotcheckError, match=rf"another model: {what}, this model has {value}; calibrate again$"):
        calibrated("llama").model.check(config)


def test_other_weights_of_the_same_shape_fit(tiny, calibrated):
    """They cannot be told apart by a configuration."""
    calibrated("llama").model.check(copy.deepcopy(tiny("llama").config))


def test_the_language_model_of_a_larger_one_counts(tiny, calibrated):
    config = tiny("llama").config
    outer = SimpleNamespace(model_type="llava", get_text_config=lambda decoder: config)
    assert text_config(outer) is config
    calibrated("llama").model.check(outer)
    assert identity(outer, calibrated("llama").keys, calibrated("llama").values) == calibrated("llama").model


def test_text(calibrated):
    assert str(calibrated("llama").model) == "llama, 3 layers, 2 KV heads of 20"
