"""A pickle is data here: plain values come out as they went in, and nothing else comes out at all."""

from __future__ import annotations

import pickle
import pickletools
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.adapters.instructions import MOST_PENDING, View, interpret

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.text(max_size=5), st.floats(allow_nan=False)
)
plain = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=4), st.integers(-9, 9)), inner, max_size=4),
    ),
    max_leaves=12,
)


@given(value=plain)
def test_plain_values_come_out_as_they_went_in(value):
    found = interpret(pickle.dumps(value, protocol=2), "file")
    assert found == value
    assert type(found) is type(value)


@given(items=st.dictionaries(st.text(max_size=4), scalars, max_size=4))
def test_ordered_dicts_keep_their_order_and_lose_their_state(items):
    ordered = OrderedDict(items)
    ordered._metadata = {"": {"version": 1}}
    found = interpret(pickle.dumps(ordered, protocol=2), "file")
    assert type(found) is dict
    assert list(found.items()) == list(items.items())


def test_what_is_shared_stays_shared():
    shared = ["x"]
    found = interpret(pickle.dumps({"a": shared, "b": shared}, protocol=2), "file")
    assert found["a"] is found["b"]


def test_a_large_dict_is_set_in_parts():
    """The pickler sets a thousand items at a time, so a model of any size stays below the limit on what is pending."""
    items = {f"layer {index}": index for index in range(MOST_PENDING)}
    assert interpret(pickle.dumps(items, protocol=2), "file") == items


@given(code=st.binary(max_size=60))
def test_any_bytes_are_a_value_or_one_clear_error(said, code):
    text = said(lambda: interpret(b"\x80\x02" + code + b".", "some file"))
    assert not text or text.startswith("some file: ")


OPCODES = [opcode for opcode in pickletools.opcodes if opcode.arg is None]


@pytest.mark.parametrize("opcode", OPCODES, ids=lambda opcode: opcode.name)
def test_each_instruction_alone_is_a_value_or_one_clear_error(said, opcode):
    said(lambda: interpret(b"\x80\x02" + opcode.code.encode("latin-1") + b".", "file"))


@pytest.mark.parametrize(
    "code",
    [
        b"t.",  # a tuple without a mark
        b"0.",  # POP is no part of a state dict
        b"K\x01K\x02s.",  # an item set on a number
        b"]X\x01\x00\x00\x00aK\x01s.",  # an item set on a list
        b"}K\x01a.",  # an item appended to a dict
        b"}(X\x01\x00\x00\x00au.",  # a key without a value
        b"h\x07.",  # a memo that nothing was put in
        b"K\x01K\x02b.",  # state for a number
        b"K\x01)R.",  # a number called
        b"K\x01Q.",  # a number as a persistent id
        b"(X\x01\x00\x00\x00akeyK\x01tQ.",
        b"}",  # no end
        b"X\xff\xff\xff\x7fa.",  # a text longer than the file
        b"\x8a\xff\x01.",  # a number longer than the file
    ],
)
def test_instructions_in_a_wrong_order(code, refused):
    refused(lambda: interpret(b"\x80\x02" + code, "w.pt"), "w.pt")


@pytest.mark.parametrize(
    "name",
    [
        "os\nsystem",
        "builtins\nexec",
        "torch\nload",
        "torch.storage\n_load_from_bytes",
        "collections\nCounter",
        "numpy\nload",
    ],
)
def test_a_global_is_refused_where_it_is_named(name, refused):
    """Not only where it is called: the error does not depend on what follows."""
    for rest in (b".", b")R.", b"0.", b"(X\x02\x00\x00\x00lstR."):
        refused(
            lambda rest=rest: interpret(b"\x80\x02c" + name.encode() + b"\n" + rest, "w.pt"),
            repr(name.replace("\n", ".")),
            "not run",
        )


@pytest.mark.parametrize(
    "name", ["torch FloatStorage", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"]
)
def test_a_global_that_is_known_is_still_not_called(name, refused):
    code = b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n"
    for arguments in (b")R.", b"K\x01R.", b"K\x01\x85R.", b"NNN\x87R.", b"(K\x01K\x01K\x01K\x01tR."):
        refused(lambda arguments=arguments: interpret(code + arguments, "w.pt"), "damaged data.pkl")


def test_a_dict_is_never_made_from_arguments(refused):
    """What a call would put into it is not looked at, so it would be lost."""
    code = b"\x80\x02ccollections\nOrderedDict\n(](X\x01\x00\x00\x00aK\x01\x86etR."
    assert pickle.loads(code) == {"a": 1}
    refused(lambda: interpret(code, "w.pt"), "OrderedDict with arguments that torch.save does not write")


@pytest.mark.parametrize(
    "size", [b"\x88", b"\x89", b"N", b"X\x01\x00\x00\x001", b"G?\xf0" + bytes(6), b"J\xff\xff\xff\xff"]
)
def test_sizes_are_natural_numbers(refused, size):
    """Not true, none, a text, 1.0 or -1."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu%stQ"
    tensor = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("
    one = b"K\x01"
    right = tensor + storage % one + b"K\x00" + one + b"\x85" + one + b"\x85\x89)tR."
    assert interpret(right, "w.pt").shape == (1,)
    for numel, offset, length, step in (
        (size, b"K\x00", one, one), (one, size, one, one), (one, one, size, one), (one, one, one, size),
    ):  # fmt: skip
        code = tensor + storage % numel + offset + length + b"\x85" + step + b"\x85\x89)tR."
        refused(lambda code=code: interpret(code, "w.pt"), "a size or an offset of")


def test_long_names_are_cut(refused):
    said = refused(lambda: interpret(b"\x80\x02c" + b"a" * 5000 + b"\nb\n.", "w.pt"), "not run")
    assert len(said) < 300


def test_keys_of_other_types_are_not_hashed(refused):
    """A tuple of itself, doubled forty times, has 2**40 leaves."""
    code = b"\x80\x02)q\x00" + b"".join(b"h\x00h\x00\x86q\x00" for _ in range(40)) + b"}h\x00K\x01s."
    refused(lambda: interpret(code, "w.pt"), "a key of type tuple")


@given(
    shape=st.lists(st.integers(0, 5), max_size=4).map(tuple),
    steps=st.lists(st.integers(0, 7), min_size=4, max_size=4),
)
def test_the_span_of_a_window(shape, steps):
    stride = tuple(steps[: len(shape)])
    view = View(key="0", dtype=None, numel=0, offset=0, shape=shape, stride=stride)
    positions = {0: ()} if 0 not in shape else {}
    for size, step in zip(shape, stride, strict=True):
        positions = {at + step * index for at in positions for index in range(size)}
    assert view.span == (max(positions) + 1 if positions else 0)
