"""A declaration with a mistake in it is refused when it is made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rotcheck.errors import RotcheckError
from rotcheck.models import ARCHITECTURES, Branch, Call

LLAMA, OPT = ARCHITECTURES["llama"], ARCHITECTURES["opt"]
ATTENTION = LLAMA.branches[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modules": ()}, r"Call\(context=False\): modules is \(\); give a tuple of paths"),
        ({"modules": "mlp"}, r"modules is 'mlp'; give a tuple of paths, one or more"),
        ({"modules": ("a", "b"), "context": True}, r"Call\(context=True\): modules is \('a', 'b'\); give one path"),
    ],
)
def test_a_call(fields, message):
    with pytest.raises(RotcheckError, match=message):
        Call(**fields)


@pytest.mark.parametrize("name", ["", "feed forward", "2nd", "mlp_1", "mlp.fc1", "é"])
def test_the_name_of_a_branch(name):
    with pytest.raises(RotcheckError, match="use letters, digits and hyphens"):
        replace(ATTENTION, name=name)


@pytest.mark.parametrize("field", ["readers", "writers", "call"])
@pytest.mark.parametrize("value", [(), "self_attn.q_proj", ["self_attn.q_proj"]])
def test_a_branch_without_parts(field, value):
    with pytest.raises(RotcheckError, match=rf"Branch attention: {field} is .*; give a tuple, one or more"):
        replace(ATTENTION, **{field: value})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"embeddings": ()}, r"Architecture llama: embeddings is \(\); give a tuple"),
        ({"embeddings": "model.embed_tokens"}, r"embeddings is 'model.embed_tokens'; give a tuple"),
        ({"branches": ()}, r"branches is \(\); give a tuple"),
        ({"branches": ("attention",)}, r"branches is \('attention',\); give a tuple of Branch"),
        ({"hidden": LLAMA.hidden[0]}, r"hidden is Hidden\(.*; give a tuple of Hidden"),
        ({"heads": "self_attn"}, r"heads is 'self_attn'; give one Heads, or leave it out"),
        ({"experts": "mlp"}, r"experts is 'mlp'; give one Experts, or leave it out"),
        (
            {"branches": (replace(LLAMA.branches[0], call=(Call(modules=("self_attn",)),)), LLAMA.branches[1])},
            r"self_attn is called without context=True",
        ),
        ({"branches": (ATTENTION, ATTENTION)}, r"branches are named attention, attention; give each a name of its own"),
        ({"norm": "rms"}, r"norm is 'rms'; it is one of layernorm, rmsnorm"),
        ({"embedding_width": "d"}, r"give embedding_width, project_in and project_out, or none of them"),
        ({"project_out": "a", "project_in": "b"}, r"give embedding_width, project_in and project_out, or none of them"),
    ],
)
def test_an_architecture(fields, message):
    with pytest.raises(RotcheckError, match=message):
        replace(LLAMA, **fields)


def test_a_shortcut_is_named_as_a_parameter_may_be():
    assert [branch.shortcut for branch in OPT.branches] == ["attention_shortcut", "feed_forward_shortcut"]
    assert replace(ATTENTION, name="A-2-b").shortcut == "A_2_b_shortcut"
    assert all(branch.shortcut.isidentifier() for each in ARCHITECTURES.values() for branch in each.branches)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_those_of_this_package_are_made_again_from_their_parts(model_type):
    found = ARCHITECTURES[model_type]
    assert replace(found) == found
    assert all(isinstance(branch, Branch) for branch in found.branches)
    assert found.gain_offset == (1.0 if "gemma" in model_type else 0.0)
    assert (found.norm == "layernorm") is (model_type in ("opt", "phi"))
    assert (found.experts is not None) is (model_type in ("mixtral", "qwen2_moe"))
