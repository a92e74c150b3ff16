"""Every declared architecture computes the same function in any basis, to 1e-12 in float64."""

from __future__ import annotations

import pytest

from rotcheck.models import ARCHITECTURES, architecture_of
from rotcheck.models.tiny import SMALL

POST_NORM = ("gemma2", "gemma3_text")
ROTATABLE = [model_type for model_type in SMALL if model_type not in POST_NORM]
STREAM = ["R1", "all", "per-layer", "global", "k-block:1", "k-block:2"]
INNER = ["R2", "R3", "R4"]
BOUND = 1e-12


def test_every_declaration_has_a_small_model():
    assert set(SMALL) == set(ARCHITECTURES)


@pytest.mark.parametrize("rotation", STREAM)
@pytest.mark.parametrize("model_type", ROTATABLE)
def test_of_the_stream(model_type, rotation, subject, turn, error):
    made = subject(model_type)
    assert error(turn(made.model, rotation), made) <= BOUND


@pytest.mark.parametrize("rotation", INNER)
@pytest.mark.parametrize("model_type", SMALL)
def test_of_heads_and_hidden_dimensions(model_type, rotation, subject, turn, error):
    made = subject(model_type)
    assert error(turn(made.model, rotation), made) <= BOUND


@pytest.mark.parametrize("model_type", ROTATABLE)
def test_where_the_basis_changes_at_attention(model_type, subject, turn, error):
    made = subject(model_type)
    if len(architecture_of(made.model).branches) > 1:  # a parallel block has one place only
        assert error(turn(made.model, "k-block:2", change="attention"), made) <= BOUND


@pytest.mark.parametrize("rotation", ["all", "per-layer"])
@pytest.mark.parametrize("model_type", ROTATABLE)
def test_of_a_tied_model(model_type, rotation, subject, turn, error):
    made = subject(model_type, tied=True)
    rotated = turn(made.model, rotation)
    assert made.model.get_output_embeddings().weight is made.model.get_input_embeddings().weight
    assert rotated.get_output_embeddings().weight is not rotated.get_input_embeddings().weight
    assert error(rotated, made) <= BOUND


@pytest.mark.parametrize("model_type", SMALL)
def test_a_tied_model_stays_tied_where_the_stream_is_left_alone(model_type, subject, turn, error):
    made = subject(model_type, tied=True)
    rotated = turn(made.model, "R2")
    assert rotated.get_output_embeddings().weight is rotated.get_input_embeddings().weight
    assert error(rotated, made) <= BOUND
