"""A wrong, damaged or hostile cache directory is one clear error, before anything in it is used."""

from __future__ import annotations

import copy
import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from rotcheck.bases import haar
from rotcheck.errors import RotcheckError
from rotcheck.spectral import Settings, SpectralCache
from rotcheck.spectral.store import LARGEST, load, save
from rotcheck.spectral.tensors import orthogonality

JSON, TENSORS = "spectral.json", "spectral.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory, codec_of):
    """Directories by kind, all of the tiny Phi, whose keys have a rotary part of 6 of 12."""
    base = tmp_path_factory.mktemp("saved")
    kinds = {
        "levels": Settings(bits=2.5, sketch=16),
        "minmax": Settings(allocation="3/1", codebook="minmax", centred=False),
        "none": Settings(bits=2.5, rotation="none"),
    }
    for name, own in kinds.items():
        save(codec_of("phi", torch.float64, own), base / name)
    return base


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved / "levels", tmp_path / "cache")


def refused(directory, *says):
    with pytest.raises(RotcheckError) as raised:
        load(directory)
    text = str(raised.value)
    assert "\n" not in text
    assert len(text) < 600
    for part in says:
        assert part in text, text


def change_tensors(directory, change, name=None):
    """Change the tensor of a name in place, or all of them in a dict."""
    tensors = load_file(directory / TENSORS)
    if name is None:
        change(tensors)
    else:
        tensors[name] = change(tensors[name].clone())
    save_file(tensors, directory / TENSORS, metadata={"format": "pt"})


def change_json(directory, place, value):
    """Set the field at a place such as ("layers", 1, "keys", "heads"); ... deletes it."""
    fields = json.loads((directory / JSON).read_text())
    inner = fields
    for step in place[:-1]:
        inner = inner[step]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    (directory / JSON).write_text(json.dumps(fields))


def test_untouched_copies_load(saved):
    for name in ("levels", "minmax", "none"):
        assert load(saved / name).model.model_type == "phi"


def test_a_missing_directory(tmp_path):
    refused(tmp_path / "nowhere", "nowhere is not a directory; pass the directory that save() wrote")


@pytest.mark.parametrize("name", [JSON, TENSORS])
def test_a_missing_file(copied, name):
    (copied / name).unlink()
    refused(copied, f"{name} is missing; pass the directory that save() wrote")


@pytest.mark.parametrize("name", [JSON, TENSORS])
def test_a_directory_in_place_of_a_file(copied, name):
    (copied / name).unlink()
    (copied / name).mkdir()
    refused(copied, f"{name} is missing")


@pytest.mark.parametrize("size", [0, 4, 100, -1, -2000])
def test_truncated_tensors(copied, size):
    path = copied / TENSORS
    path.write_bytes(path.read_bytes()[:size])
    refused(copied, TENSORS, "damaged safetensors file", "save the cache again")


def test_garbage_tensors(copied):
    (copied / TENSORS).write_bytes(bytes(range(256)) * 8)
    refused(copied, TENSORS, "damaged safetensors file")


def test_a_file_beyond_any_cache_is_not_read(copied):
    with (copied / TENSORS).open("r+b") as file:
        file.truncate(LARGEST + 1)  # sparse: takes no space
    refused(copied, f"{LARGEST + 1} bytes, more than {LARGEST}")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "{'a': 1}", "[" * 100000, '{"schema_version": 1}'])
def test_broken_json(copied, text):
    (copied / JSON).write_text(text)
    refused(copied, JSON, "save the cache again")


def test_json_that_is_not_text(copied):
    (copied / JSON).write_bytes(b"\xff\xfe\x00")
    refused(copied, JSON, "not valid JSON")


def test_a_huge_json_is_not_parsed(copied):
    with (copied / JSON).open("wb") as file:
        file.truncate(17 * 2**20)
    refused(copied, JSON, "bytes of JSON, more than")


@pytest.mark.parametrize("version", [0, 2, "1", True, None, 1.0, 10**30])
def test_another_schema_version(copied, version):
    change_json(copied, ("schema_version",), version)
    refused(copied, f"schema_version is {version!r:.40}, this rotcheck reads 1")


KEYS = ("layers", 1, "keys")


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("model", "model_type"), "", "model.model_type"),
        (("model", "hidden_size"), 0, "model.hidden_size"),
        (("model", "hidden_size"), 2**40, "model.hidden_size"),
        (("model", "vocab_size"), "61", "model.vocab_size"),
        (("model", "vocab_size"), True, "model.vocab_size"),
        (("model", "declared"), {"head_dim": "x"}, "model.declared.head_dim"),
        (("model", "declared"), {f"f{i}": i for i in range(17)}, "model.declared"),
        (("model", "owner"), "me", "model.owner"),
        (("layers",), [], "layers"),
        (("layers",), {}, "layers"),
        (("layers", 1, "keys"), None, "layers.1.keys"),
        (("layers", 1, "values"), ..., "layers.1.values"),
        (("layers", 1, "queries"), 3, "layers.1.queries"),
        ((*KEYS, "heads"), 0, "layers.1.keys.heads"),
        ((*KEYS, "heads"), 2.0, "layers.1.keys.heads"),
        ((*KEYS, "heads"), 10**9, "layers.1.keys.heads"),
        ((*KEYS, "width"), -12, "layers.1.keys.width"),
        ((*KEYS, "width"), True, "layers.1.keys.width"),
        ((*KEYS, "rotation"), "dct", "layers.1.keys.rotation"),
        ((*KEYS, "centred"), "yes", "layers.1.keys.centred"),
        ((*KEYS, "centred"), 1, "layers.1.keys.centred"),
        ((*KEYS, "rotary"), -1, "layers.1.keys.rotary"),
        ((*KEYS, "rotary"), 12, "rotary is 12, the heads are 12 wide"),
        ((*KEYS, "codec"), "pickle", "layers.1.keys.codec"),
        ((*KEYS, "codec"), "none", "a path without codec neither normalises nor sketches"),
        ((*KEYS, "normalize"), None, "layers.1.keys.normalize"),
        ((*KEYS, "sketch"), 12, "layers.1.keys.sketch"),
        ((*KEYS, "sketch"), 2**20, "layers.1.keys.sketch"),
        ((*KEYS, "module"), "os", "layers.1.keys.module"),
        (("settings",), [], "settings"),
        (("settings", "bits"), 9.0, "bits 9.0 per coordinate"),
        (("settings", "bits"), "3", "settings.bits"),
        (("settings", "bits"), None, "settings.bits"),
        (("settings", "seed"), -1, "seed -1"),
        (("settings", "allocation"), "4-2", "allocation '4-2' is not one of"),
        (("settings", "codebook"), "kmeans", "codebook 'kmeans' is not one of"),
        (("settings", "sketch"), 3, "a sketch of 3 signs"),
        (("settings", "auto_map"), "evil.Evil", "settings.auto_map: no setting has this name"),
        (("extra",), 1, "extra"),
    ],
)
def test_a_field_that_is_wrong_is_named(copied, place, value, says):
    change_json(copied, place, value)
    refused(copied, JSON, says, "save the cache again")


@pytest.mark.parametrize("field", ["schema_version", "model", "settings", "layers"])
def test_a_field_that_is_missing_is_named(copied, field):
    change_json(copied, (field,), ...)
    refused(copied, JSON, field)


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ((*KEYS, "heads"), 3, "layers.1.keys.basis has shape (2, 12, 12), spectral.json says (3, 12, 12)"),
        ((*KEYS, "width"), 13, "layers.1.keys.basis has shape (2, 12, 12), spectral.json says (2, 13, 13)"),
        ((*KEYS, "sketch"), 24, "layers.1.keys.projections has shape (2, 16, 12), spectral.json says (2, 24, 12)"),
        ((*KEYS, "sketch"), 0, "tensor layers.1.keys.projections does not belong to spectral.json"),
        ((*KEYS, "codec"), "minmax", "tensor layers.1.keys.levels does not belong"),
        (("layers", 1, "values", "sketch"), 8, "1 tensors are missing, first layers.1.values.projections"),
    ],
)
def test_facts_that_the_tensors_contradict(copied, place, value, says):
    change_json(copied, place, value)
    refused(copied, TENSORS, says)


def test_another_number_of_layers(copied):
    layers = json.loads((copied / JSON).read_text())["layers"]
    change_json(copied, ("layers",), layers[:2])
    refused(copied, "tensor layers.2.keys.basis does not belong to spectral.json")
    change_json(copied, ("layers",), [*layers, layers[0]])
    refused(copied, "tensors are missing, first layers.3.keys")


def test_huge_sizes_in_the_json_cost_no_memory(copied):
    for name, value in (("heads", 2**13), ("width", 2**13)):
        change_json(copied, (*KEYS, name), value)
    refused(copied, "spectral.json says (8192, 8192, 8192)")


def drop(tensors):
    del tensors["layers.2.values.mean"]


def add(tensors):
    tensors["layers.0.keys.hook"] = torch.zeros(3)


def reshape(tensors):
    tensors["layers.0.keys.basis"] = torch.eye(12, dtype=torch.float64)


def flatten_bits(tensors):
    tensors["layers.0.keys.bits"] = tensors["layers.0.keys.bits"].flatten()


def narrow(tensors):
    tensors["layers.0.keys.basis"] = tensors["layers.0.keys.basis"].float()


def widen(tensors):
    tensors["layers.0.keys.bits"] = tensors["layers.0.keys.bits"].long()


def square_levels(tensors):
    tensors["layers.0.keys.levels"] = tensors["layers.0.keys.levels"][:4].reshape(2, 2)


def flood_levels(tensors):
    tensors["layers.0.keys.levels"] = torch.zeros(256 * 2 * 12 + 1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop, "1 tensors are missing, first layers.2.values.mean"),
        (add, "tensor layers.0.keys.hook does not belong to spectral.json"),
        (reshape, "layers.0.keys.basis has shape (12, 12), spectral.json says (2, 12, 12)"),
        (flatten_bits, "layers.0.keys.bits has shape (24,), spectral.json says (2, 12)"),
        (narrow, "layers.0.keys.basis is stored as F32, not as F64"),
        (widen, "layers.0.keys.bits is stored as I64, not as U8"),
        (square_levels, "layers.0.keys.levels has shape (2, 2), which no bits ask for"),
        (flood_levels, "layers.0.keys.levels has shape (6145,), which no bits ask for"),
    ],
)
def test_tensors_that_do_not_fit(copied, change, says):
    change_tensors(copied, change)
    refused(copied, TENSORS, says, "save the cache again")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["basis", "mean", "variances", "spectrum", "levels", "projections"])
def test_every_number_is_finite(copied, name, bad):
    def spoil(tensor):
        tensor.view(-1)[5] = bad
        return tensor

    change_tensors(copied, spoil, f"layers.1.keys.{name}")
    refused(copied, TENSORS, f"layers.1.keys.{name} has NaN or infinite entries")


def test_the_centre_of_ranges_is_finite(saved, tmp_path):
    directory = shutil.copytree(saved / "minmax", tmp_path / "cache")
    change_tensors(directory, lambda t: t.fill_(torch.inf), "layers.2.values.centre")
    refused(directory, "layers.2.values.centre has NaN or infinite entries")


def spoilt_head(change):
    """The basis with the matrix of its second head changed."""

    def apply(basis):
        basis[1] = change(basis[1])
        return basis

    return apply


@pytest.mark.parametrize(
    "change",
    [
        torch.zeros_like,
        lambda q: (1 + 1e-9) * q,
        lambda q: q.float().double(),
        lambda q: q.half().double(),
        lambda q: torch.cat([q[:, :1], q[:, :-1]], 1),
        lambda q: q + 1e-10 * torch.ones_like(q),
        lambda q: 1e200 * q,
    ],
    ids=["zeros", "scale", "through float32", "through float16", "a column twice", "noise", "overflow"],
)
def test_a_basis_that_is_not_orthogonal(copied, change):
    change_tensors(copied, spoilt_head(change), "layers.0.values.basis")
    refused(copied, "layers.0.values.basis: the basis of head 1 is not orthogonal, |U.T U - I| is", "allowed")


@settings(deadline=None, max_examples=20)
@given(width=st.integers(2, 97), seed=st.integers(0, 2**20))
def test_the_allowance_accepts_drawn_bases_and_rejects_coarser_ones(width, seed):
    """Half of float32's rounding already fails: the allowance is for float64."""
    allowed, basis = orthogonality(width).value, haar(width, seed=seed)
    eye = torch.eye(width, dtype=torch.float64)
    assert (basis.T @ basis - eye).norm() <= allowed / 4
    coarse = basis.float().double()
    assert (coarse.T @ coarse - eye).norm() > 100 * allowed


def test_other_orthogonal_bases_are_not_for_us_to_judge(copied):
    """A transposed or sign-flipped basis is as orthogonal: the checks of rotations are what finds it."""
    change_tensors(copied, spoilt_head(lambda q: -q.T), "layers.0.values.basis")
    assert load(copied).values[0].axes.basis.shape == (2, 12, 12)


def test_axes_that_mix_rotary_coordinates_with_others(copied):
    change_tensors(copied, spoilt_head(lambda q: haar(12, seed=1)), "layers.2.keys.basis")
    refused(copied, "layers.2.keys.basis: axes of head 1 mix the 6 rotary coordinates with the others")


def test_a_rotation_where_none_is_declared(saved, tmp_path):
    directory = shutil.copytree(saved / "none", tmp_path / "cache")
    change_tensors(directory, spoilt_head(lambda q: haar(12, seed=1)), "layers.2.values.basis")
    refused(directory, "layers.2.values.basis: the rotation is declared as none, but the basis turns")


def test_a_mean_where_none_is_declared(saved, tmp_path):
    directory = shutil.copytree(saved / "minmax", tmp_path / "cache")
    change_tensors(directory, lambda t: t + 1e-9, "layers.0.keys.mean")
    refused(directory, "layers.0.keys.mean is not zero, although the path is not centred")


@pytest.mark.parametrize("name", ["variances", "spectrum"])
def test_negative_spectra(copied, name):
    def negate(tensor):
        tensor[1, -1] = -1e-3
        return tensor

    change_tensors(copied, negate, f"layers.0.keys.{name}")
    refused(copied, f"layers.0.keys.{name} has a negative entry, -0.001")


def test_a_spectrum_in_another_order(copied):
    change_tensors(copied, lambda t: t.flip(1), "layers.0.keys.spectrum")
    refused(copied, "layers.0.keys.spectrum is not sorted, largest first")


@pytest.mark.parametrize(("value", "says"), [(9, "reaches 9"), (255, "reaches 255"), (0, "reaches 0")])
@pytest.mark.parametrize("kind", ["levels", "minmax"])
def test_bits_out_of_range(saved, tmp_path, kind, value, says):
    directory = shutil.copytree(saved / kind, tmp_path / "cache")
    change_tensors(directory, lambda t: t.fill_(value), "layers.1.values.bits")
    refused(directory, f"layers.1.values.bits {says}: coordinates have 0 to 8 bits")


def test_more_bits_than_levels(copied):
    def more(tensor):
        tensor[0, 11] += 1
        return tensor

    change_tensors(copied, more, "layers.1.values.bits")
    refused(copied, "layers.1.values.levels has", "levels, layers.1.values.bits asks for")


def test_levels_that_fall(copied):
    change_tensors(copied, lambda t: t.flip(0), "layers.1.values.levels")
    refused(copied, "layers.1.values.levels: a codebook needs 2**bits finite levels per coordinate, ascending")


@pytest.mark.parametrize(
    ("value", "says"),
    [(-1, "names group -1"), (12, "names group 12"), (2**15 - 1, "names group 32767"), (7, "without gaps")],
)
def test_groups_out_of_range(saved, tmp_path, value, says):
    directory = shutil.copytree(saved / "minmax", tmp_path / "cache")
    change_tensors(directory, lambda t: t.fill_(value), "layers.1.values.group")
    refused(directory, "layers.1.values.group", says)


@pytest.mark.parametrize("name", [JSON, TENSORS])
def test_links_out_of_the_directory_are_not_followed(copied, saved, name):
    (copied / name).unlink()
    (copied / name).symlink_to(saved / "levels" / name)
    refused(copied, f"{name!r} leads outside the directory; copy the file into it")


def test_a_link_to_the_directory_itself_is_fine(saved, tmp_path):
    (tmp_path / "link").symlink_to(saved / "levels")
    assert load(tmp_path / "link").model.model_type == "phi"


def test_no_other_file_is_looked_at(copied):
    (copied / "config.json").write_text("{")
    (copied / "modeling_phi.py").write_text("raise SystemExit")
    (copied / "spectral.pt").write_bytes(b"cos\nsystem\n(S'exit'\ntR.")
    assert load(copied).model.model_type == "phi"


def test_heads_that_lie_are_caught_by_the_model_that_uses_them(copied, tiny):
    """A consistent file for three heads of another model passes as what it is, and is refused by the cache."""
    change_json(copied, ("model", "declared"), {"num_key_value_heads": 3})
    with pytest.raises(RotcheckError, match="another model: num_key_value_heads 3, this model has 2"):
        SpectralCache(load(copied), tiny("phi").config)


odd = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 2**70), st.floats(), st.text(max_size=5), st.just([]), st.just({})
)


def places(fields, above=()):
    """Every place in a JSON value, inner ones too."""
    items = fields.items() if isinstance(fields, dict) else enumerate(fields) if isinstance(fields, list) else ()
    for key, value in items:
        yield (*above, key)
        yield from places(value, (*above, key))


@settings(deadline=None, max_examples=60)
@given(data=st.data(), value=odd)
def test_any_odd_value_anywhere_is_refused_or_harmless(data, value, saved, tmp_path_factory):
    """Harmless are other settings, which only say how the codec was made, and other names and sizes of a model."""
    directory = shutil.copytree(saved / "levels", tmp_path_factory.mktemp("odd") / "cache")
    place = data.draw(st.sampled_from(sorted(places(json.loads((directory / JSON).read_text())), key=repr)))
    change_json(directory, place, copy.deepcopy(value))
    said = ""
    try:
        found = load(directory)
        assert [path.axes.basis.shape for path in found.keys] == [(2, 12, 12)] * 3
    except RotcheckError as error:
        said = str(error)
    assert "\n" not in said
