"""Every number of a SlicingConfig is compared with the tensors: it agrees where it is right, and no error is missed."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.adapters.slicegpt_json import compare, read_slicing_json
from rotcheck.errors import RotcheckError

HIDDEN = 40


@st.composite
def models(draw):
    """Widths of the sites of a model with one or two branches a layer, and its number of layers."""
    branches, layers = draw(st.sampled_from((1, 2))), draw(st.integers(1, 4))
    widths = draw(st.lists(st.integers(1, HIDDEN), min_size=branches * layers + 1, max_size=branches * layers + 1))
    return SimpleNamespace(branches=branches, layers=layers, widths=tuple(widths))


def fields_of(model):
    """What SliceGPT's scheduler writes for it; a parallel block leaves two tables empty."""
    attention = model.widths[: -1 : model.branches]
    written = model.widths[model.branches :: model.branches]
    between = model.widths[1::2] if model.branches == 2 else ()
    return {
        "hidden_size": HIDDEN,
        "layers_num": model.layers,
        "do_slice_head": model.widths[-1] != HIDDEN,
        "parallel_blocks": model.branches == 1,
        "embedding_dimensions": {"0": model.widths[0]},
        "attention_input_dimensions": {str(layer): width for layer, width in enumerate(attention)},
        "attention_output_dimensions": {str(layer): width for layer, width in enumerate(between)},
        "mlp_input_dimensions": {str(layer): width for layer, width in enumerate(between)},
        "mlp_output_dimensions": {str(layer): width for layer, width in enumerate(written)},
        "head_dimension": model.widths[-1],
        "const_dimension": None,
    }


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    path = tmp_path_factory.mktemp("json") / "model_0.25.json"

    def run(model, fields):
        path.write_text(json.dumps(fields))
        config = SimpleNamespace(hidden_size=HIDDEN, num_hidden_layers=model.layers)
        compare(read_slicing_json(path), model.widths, config, branches=model.branches)

    return run


@given(model=models())
def test_what_slicegpt_writes_agrees(check, model):
    check(model, fields_of(model))


def leaves(fields):
    """Path of every number and flag that says something."""
    for field, value in fields.items():
        if isinstance(value, dict):
            yield from ((field, key) for key in value)
        elif value is not None and field != "do_slice_head":
            yield (field,)


@given(model=models(), data=st.data())
def test_any_other_number_is_found_and_named(check, model, data):
    fields = fields_of(model)
    path = data.draw(st.sampled_from(sorted(leaves(fields))))
    holder = fields if len(path) == 1 else fields[path[0]]
    before = holder[path[-1]]
    holder[path[-1]] = not before if isinstance(before, bool) else before + data.draw(st.integers(1, 5))
    with pytest.raises(RotcheckError) as raised:
        check(model, fields)
    assert path[0] in str(raised.value)
    assert len(path) == 1 or f"{path[0]}[{path[1]}]" in str(raised.value)


@given(model=models(), data=st.data())
def test_a_layer_that_is_left_out_or_too_many_is_found(check, model, data):
    fields = fields_of(model)
    names = [name for name, value in fields.items() if isinstance(value, dict) and value and name[0] != "e"]
    table = fields[data.draw(st.sampled_from(names))]
    if len(table) > 1 and data.draw(st.booleans()):
        table.pop(data.draw(st.sampled_from(sorted(table))))
        says = "has no layer"
    else:
        table[str(model.layers)] = model.widths[-1]
        says = "is for a layer that the base config lacks"
    with pytest.raises(RotcheckError, match=says):
        check(model, fields)


@given(model=models(), data=st.data())
def test_what_is_not_said_is_not_compared(check, model, data):
    fields = fields_of(model)
    kept = data.draw(st.sets(st.sampled_from(sorted(fields))))
    check(model, {name: fields[name] for name in kept if name != "layers_num"})


@given(layers=st.integers(1, 4), width=st.integers(1, HIDDEN), branches=st.sampled_from((1, 2)))
def test_a_constant_width_has_an_unsliced_head(check, layers, width, branches):
    widths = (width,) * (branches * layers)
    model = SimpleNamespace(branches=branches, layers=layers, widths=(*widths, HIDDEN))
    check(model, {"const_dimension": width})
    with pytest.raises(RotcheckError, match="const_dimension"):
        check(model, {"const_dimension": width + 1})
    if width != HIDDEN:
        model.widths = (*widths, width)
        with pytest.raises(RotcheckError, match="unsliced head"):
            check(model, {"const_dimension": width})


@given(
    field=st.sampled_from(("hidden_size", "layers_num", "do_slice_head", "mlp_input_dimensions", "const_dimension")),
    value=st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-9, 2**80),
        st.floats(),
        st.text(max_size=4),
        st.just([]),
        st.just({"0": 3}),
    ),
)
def test_any_odd_value_is_one_clear_error_or_harmless(check, said, field, value):
    text = said(lambda: check(SimpleNamespace(branches=2, layers=1, widths=(7, 8, 9)), {field: value}))
    assert not text or "model_0.25.json: " in text
