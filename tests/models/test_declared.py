"""Declarations are found by model type: those of this package, and those of others by entry point."""

from __future__ import annotations

import pytest
from transformers import GPT2Config, LlamaConfig

from rotcheck.errors import RotcheckError
from rotcheck.models import ARCHITECTURES, Architecture, architecture_of, declarations
from rotcheck.models.declared import ENTRY_POINTS

SOURCE = """
from dataclasses import replace

from rotcheck.models import ARCHITECTURES

DECLARED = replace(ARCHITECTURES["llama"], model_type="gpt2")
"""


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_those_of_this_package(model_type):
    found = ARCHITECTURES[model_type]
    assert isinstance(found, Architecture)
    assert found.model_type == model_type
    assert architecture_of(type("Config", (), {"model_type": model_type})()) is found
    assert architecture_of(type("Config", (), {"model_type": "rotcheck_sliced_" + model_type})()) is found


def test_the_tables_cannot_be_changed():
    for table in (ARCHITECTURES, declarations()):
        with pytest.raises(TypeError):
            table["other"] = ARCHITECTURES["opt"]
        with pytest.raises(TypeError):
            del table["opt"]
    with pytest.raises(AttributeError):
        ARCHITECTURES["opt"].norm = "rmsnorm"


def test_one_of_another_package(installed):
    with pytest.raises(RotcheckError, match="'gpt2' is not declared"):
        architecture_of(GPT2Config())
    installed({"gpt2": "mine:DECLARED"}, mine=SOURCE)
    assert architecture_of(GPT2Config()).model_type == "gpt2"
    assert list(declarations()) == [*ARCHITECTURES, "gpt2"]
    assert "gpt2" not in ARCHITECTURES


def test_it_is_gone_with_its_package():
    assert set(declarations()) == set(ARCHITECTURES)


@pytest.mark.parametrize(
    ("points", "source", "message"),
    [
        ({"gpt2": "absent:DECLARED"}, "", r"cannot be loaded: No module named 'absent'; repair or uninstall"),
        ({"gpt2": "mine:OTHER"}, SOURCE, r"cannot be loaded: .*has no attribute 'OTHER'; repair or uninstall"),
        ({"gpt2": "mine:DECLARED"}, "def :", r"cannot be loaded: invalid syntax"),
        ({"gpt2": "mine:DECLARED"}, "DECLARED = Architecture()", r"cannot be loaded: name 'Architecture' is not"),
        (
            {"gpt2": "mine:DECLARED"},
            SOURCE.replace("model_type=", "modeltype='x', model_type="),
            r"cannot be loaded: .*unexpected keyword argument 'modeltype'",
        ),
        (
            {"gpt2": "mine:DECLARED"},
            SOURCE.replace('"gpt2")', '"gpt2", norm="batch")'),
            r"norm is 'batch'; it is one of",
        ),
        ({"gpt2": "mine:DECLARED"}, "DECLARED = 3", r"is a int; let it name a rotcheck.models.Architecture"),
        (
            {"gpt": "mine:DECLARED"},
            SOURCE,
            r"gpt = 'mine:DECLARED' declares model type 'gpt2'; give both the same name",
        ),
        (
            {"llama": "mine:DECLARED"},
            SOURCE.replace("gpt2", "llama"),
            r"model type 'llama' is declared already; uninstall one of them",
        ),
    ],
)
def test_a_wrong_entry_point_is_one_clear_error(points, source, message, installed):
    installed(points, mine=source)
    name = next(iter(points))
    with pytest.raises(RotcheckError, match=message) as caught:
        architecture_of(type("Config", (), {"model_type": name})())
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_two_packages_that_declare_one_type(installed):
    installed({"gpt2": "mine:DECLARED"}, mine=SOURCE)
    installed({"gpt2": "yours:DECLARED"}, yours=SOURCE)
    with pytest.raises(RotcheckError, match=rf"{ENTRY_POINTS} entry point gpt2 = .*declared already; uninstall one"):
        architecture_of(GPT2Config())


def test_a_broken_one_is_an_error_for_its_own_type_only(installed):
    """Somebody else's package must not stop rotcheck from looking at other models."""
    installed({"gpt2": "absent:DECLARED"})
    assert architecture_of(LlamaConfig()) is ARCHITECTURES["llama"]
    assert set(declarations()) == set(ARCHITECTURES)
    with pytest.raises(RotcheckError, match="gpt2 = 'absent:DECLARED' cannot be loaded"):
        architecture_of(GPT2Config())


def test_an_unknown_type_is_told_how_to_be_declared():
    with pytest.raises(RotcheckError, match=r"'gpt2' is not declared \(declared: gemma, .*docs/new-architecture\.md"):
        architecture_of(GPT2Config())
