"""A wrong, damaged or hostile manifest is one clear line: the file, the field or the basis is named."""

from __future__ import annotations

import copy
import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.errors import RotcheckError
from rotcheck.slicing import read_manifest, verify_manifest
from rotcheck.slicing.manifest import LARGEST, digest

JSON, BASES = "bases.json", "bases.safetensors"
TENSOR = ("tensors", "model.layers.0.self_attn.o_proj.weight")


@pytest.fixture
def refused(one_line):
    def check(directory, *says):
        one_line(lambda: read_manifest(directory), *says, "save the model again with its plan")

    return check


def test_a_model_without_manifest(copied, one_line):
    for name in (JSON, BASES):
        (copied / name).unlink()
    assert read_manifest(copied) is None
    one_line(lambda: verify_manifest(copied), "carries no bases.json; save the model with plan= or inner=")


def test_bases_whose_json_is_gone(copied, refused, one_line):
    """Not a model without manifest: someone removed the statement and left what it is about."""
    (copied / JSON).unlink()
    refused(copied, f"{BASES} is there without its {JSON}")
    one_line(lambda: verify_manifest(copied), f"{BASES} is there without its {JSON}")


def test_what_is_of_no_one_field_has_one_colon(copied, refused, change_json):
    change_json(copied / JSON, ("bases", 0, "id"), "R1.1")
    refused(copied, f"{JSON}: basis R1.1 is there twice; ")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "{'a': 1}", "[" * 100000, '{"schema_version": 1}'])
def test_broken_json(copied, refused, text):
    (copied / JSON).write_text(text)
    refused(copied, JSON)


def test_json_that_is_not_text(copied, refused):
    (copied / JSON).write_bytes(b"\xff\xfe\x00")
    refused(copied, "not valid JSON")


def test_a_huge_json_is_not_parsed(copied, refused):
    with (copied / JSON).open("wb") as file:
        file.truncate(17 * 2**20)
    refused(copied, "bytes of JSON, more than")


@pytest.mark.parametrize("version", [0, 2, "1", True, None, 1.0, 10**30])
def test_another_schema_version(copied, refused, change_json, version):
    change_json(copied / JSON, ("schema_version",), version)
    refused(copied, f"schema_version is {version!r:.40}, this rotcheck reads 1")


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("model_type",), "", "model_type"),
        (("hidden_size",), 0, "hidden_size"),
        (("hidden_size",), True, "hidden_size"),
        (("hidden_size",), 2**40, "hidden_size"),
        (("file",), "../model.safetensors", "file"),
        (("file",), ..., "file"),
        (("bases",), [], "bases"),
        (("config",), ..., "config"),
        (("config",), {}, "config"),
        (("config",), [], "config"),
        (("bases", 0, "id"), "R1/../0", "bases.0.id"),
        (("bases", 0, "id"), "R1.1", "basis R1.1 is there twice"),
        (("bases", 0, "keys"), ["R1.1"], "key R1.1 is there twice"),
        (("bases", 0, "keys"), ["a", "b", "c"], "basis R1.0 of size 48 has 3 keys for (48,)"),
        (("bases", 0, "role"), "R5", "bases.0.role"),
        (("bases", 0, "role"), "R2", "basis R1.0 of role R2 does not say where it is, or says more"),
        (("bases", 0, "layer"), 0, "basis R1.0 of role R1 does not say where it is, or says more"),
        (("bases", 0, "sites"), [], "does not say where it is"),
        (("bases", 0, "sites"), [-1], "bases.0.sites.0"),
        (("bases", 0, "size"), 47, "basis R1.0 of size 47 has 1 keys for (48,)"),
        (("bases", 0, "factors"), [2**24] * 63, "of size 48"),
        (("bases", 0, "dtype"), "int8", "bases.0.dtype"),
        (("bases", 0, "sha256"), "0" * 63, "bases.0.sha256"),
        (("bases", 0, "sha256"), "G" * 64, "bases.0.sha256"),
        (("bases", 0, "module"), "os", "bases.0.module"),
        (("tensors",), {}, "tensors"),
        ((*TENSOR, "dtype"), "F32", "dtype"),
        ((*TENSOR, "shape"), [-1], "shape.0"),
        ((*TENSOR, "shape"), [1] * 9, "shape"),
        ((*TENSOR, "uses", 0, "side"), "left", "uses.0.side"),
        ((*TENSOR, "uses", 0, "bases"), [], "uses.0.bases"),
        ((*TENSOR, "uses", 0, "bases"), "R1.0", "uses.0.bases"),
        ((*TENSOR, "uses", 0, "block"), [0], "uses.0.block"),
        ((*TENSOR, "uses", 0, "block"), [0, 1.5], "uses.0.block.1"),
        (("owner",), "me", "owner"),
    ],
)
def test_a_field_that_is_wrong_is_named(copied, refused, change_json, place, value, says):
    change_json(copied / JSON, place, value)
    refused(copied, JSON, says)


@pytest.mark.parametrize("size", [0, 4, 100, -1, -2000])
def test_truncated_bases(copied, refused, size):
    (copied / BASES).write_bytes((copied / BASES).read_bytes()[:size])
    refused(copied, BASES, "damaged safetensors file")


def test_a_file_beyond_any_bases_is_not_read(copied, refused):
    with (copied / BASES).open("r+b") as file:
        file.truncate(LARGEST + 1)  # sparse: takes no space
    refused(copied, f"{LARGEST + 1} bytes, more than {LARGEST}")


def test_bases_that_are_missing(copied, one_line):
    (copied / BASES).unlink()
    one_line(lambda: read_manifest(copied), f"{BASES} is missing")


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda t: t.pop("R2.1.0"), "tensor R2.1.0 is missing"),
        (lambda t: t.update(extra=torch.zeros(3)), "tensor extra does not belong to bases.json"),
        (lambda t: t.update({"R2.1.0": torch.eye(5).double()}), "R2.1.0 is ('float64', (5, 5)), bases.json says"),
        (lambda t: t.update({"R2.1.0": t["R2.1.0"].float()}), "R2.1.0 is ('float32', (12, 12)), bases.json says"),
        (lambda t: t.update({"R2.1.0": t["R2.1.0"].long()}), "R2.1.0 is ('another dtype', (12, 12)), bases.json says"),
    ],
)
def test_bases_that_do_not_fit(copied, refused, change_tensors, edit, says):
    change_tensors(copied / BASES, edit)
    refused(copied, BASES, says)


@pytest.mark.parametrize("name", [JSON, BASES])
def test_links_out_of_the_directory_are_not_followed(copied, saved, one_line, name):
    (copied / name).unlink()
    (copied / name).symlink_to(saved / name)
    one_line(lambda: read_manifest(copied), f"{name!r} leads outside the directory; copy the file into it")


def test_the_hash_is_of_the_bytes_one_after_the_other():
    """The definition, on numbers whose bytes are known: 1.0 and -2.0 in float32, little-endian."""
    import hashlib

    one, two = torch.tensor([1.0]), torch.tensor([[-2.0]])
    expected = hashlib.sha256(bytes.fromhex("0000803f") + bytes.fromhex("000000c0")).hexdigest()
    assert digest(one, two) == digest(torch.tensor([1.0, -2.0])) == expected
    matrix = torch.arange(6.0).reshape(2, 3)
    assert digest(matrix.T.contiguous().T) == digest(matrix) != digest(matrix.T)
    assert digest(torch.ones(2, dtype=torch.bfloat16)) == hashlib.sha256(bytes.fromhex("803f803f")).hexdigest()


odd = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 2**70), st.floats(), st.text(max_size=5), st.just([]), st.just({})
)


def places(fields, above=()):
    """Every place in a JSON value, inner ones too."""
    items = fields.items() if isinstance(fields, dict) else enumerate(fields) if isinstance(fields, list) else ()
    for key, value in items:
        yield (*above, key)
        yield from places(value, (*above, key))


@settings(max_examples=25)
@given(data=st.data(), value=odd)
def test_any_odd_value_anywhere_is_refused_or_found(data, value, saved, change_json, tmp_path_factory):
    """Nothing that is said of a model can be replaced by something else without a word."""
    directory = shutil.copytree(saved, tmp_path_factory.mktemp("odd") / "model")
    fields = json.loads((directory / JSON).read_text())
    place = data.draw(st.sampled_from(sorted(places(fields), key=repr)))
    change_json(directory / JSON, place, copy.deepcopy(value))
    if json.loads((directory / JSON).read_text()) == fields:
        return
    said = []
    try:
        said = [wrong.what for wrong in verify_manifest(directory)]
    except RotcheckError as error:
        said = [str(error)]
    assert said, place
    assert all("\n" not in line for line in said)
