"""A file of a stranger runs no code, leads nowhere else and costs no more than its own size."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from rotcheck.adapters import instructions, read_state_dict, torch_files


class Payload:
    """Opens, and so creates, a file where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def archive(path, pickled, storages, **records):
    """A file in the layout of torch.save with any content."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        for key, value in storages.items():
            file.writestr(f"archive/data/{key}", value)
        for name, value in records.items():
            file.writestr(f"archive/{name}", value)
    return path


def instruct(
    *, kind="torch FloatStorage", key="0", numel=6, offset=0, shape=(2, 3), stride=(3, 1), call="_rebuild_tensor_v2"
):
    """The pickle of ``{"w": tensor}`` with any numbers in it, written by hand."""

    def number(value):
        data = int(value).to_bytes(40, "little", signed=True)
        return b"\x8a" + bytes([len(data)]) + data

    def text(value):
        data = value.encode()
        return b"X" + len(data).to_bytes(4, "little") + data

    def sizes(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    module, _, name = kind.partition(" ")
    identity = (
        b"(" + text("storage") + f"c{module}\n{name}\n".encode() + text(key) + text("cpu") + number(numel) + b"tQ"
    )
    hooks = b"ccollections\nOrderedDict\n)R"
    tensor = f"ctorch._utils\n{call}\n(".encode() + identity + number(offset) + sizes(shape) + sizes(stride) + b"\x89"
    return b"\x80\x02}" + text("w") + tensor + hooks + b"tRs."


FLOATS = {"0": torch.arange(6.0).numpy().tobytes()}


def test_the_pickle_written_by_hand_is_right(tmp_path):
    path = archive(tmp_path / "w.pt", instruct(), FLOATS)
    assert torch.equal(read_state_dict(path)["w"], torch.arange(6.0).reshape(2, 3))
    again = archive(tmp_path / "v.pt", instruct(), FLOATS, version="3\n")
    assert torch.equal(torch.load(again, weights_only=True)["w"], torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("wrap", [lambda value: {"w": value}, lambda value: value, lambda value: [value]])
def test_code_is_refused_and_not_run(tmp_path, refused, wrap):
    created = tmp_path / "created"
    torch.save(wrap(Payload(created)), tmp_path / "evil.pt")
    refused(lambda: read_state_dict(tmp_path / "evil.pt"), "evil.pt", "open", "not run", "state_dict()")
    assert not created.exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert created.exists(), "the payload was harmless, and the test proves nothing"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_code_is_not_run_in_any_protocol(tmp_path, refused, protocol):
    created = tmp_path / "created"
    archive(tmp_path / "evil.pt", pickle.dumps({"w": Payload(created)}, protocol=protocol), {})
    refused(lambda: read_state_dict(tmp_path / "evil.pt"), "evil.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps({"w": Payload(created)}, protocol=protocol))
    refused(lambda: read_state_dict(tmp_path / "bare.pt"), "bare.pt", "bare pickle", "1.6")
    assert not created.exists()


@pytest.mark.parametrize("name", ["torch\nload", "builtins\neval", "torch._utils\n_rebuild_qtensor", "torch\nTensor"])
def test_only_tensors_may_be_named(tmp_path, refused, name):
    path = archive(tmp_path / "w.pt", b"\x80\x02c" + name.encode() + b"\n.", {})
    refused(lambda: read_state_dict(path), name.replace("\n", "."), "not run")


@pytest.mark.parametrize("code", [b"\x80\x02ibuiltins\neval\n.", b"\x80\x02(oq.", b"\x80\x02P0\n.", b"\x80\x02\x8f."])
def test_other_instructions_are_refused(tmp_path, refused, code):
    path = archive(tmp_path / "w.pt", code, {})
    refused(lambda: read_state_dict(path), "pickle instruction", "does not belong in a state dict")


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ({"shape": (3, 3)}, "shape (3, 3)"),
        ({"offset": 1}, "at 1"),
        ({"stride": (4, 1)}, "stride (4, 1)"),
        ({"shape": (10**12, 3), "stride": (0, 0)}, "more than the 6 elements"),
        ({"shape": (2**62, 2**62), "stride": (0, 0)}, "more than the 6 elements"),
        ({"shape": (0, 2**62), "stride": (1, 1)}, "more than the 6 elements"),
        ({"shape": (1,) * 500, "stride": (1,) * 500}, "500"),
        ({"shape": (-2, -3)}, "damaged data.pkl"),
        ({"stride": (-3, 1)}, "damaged data.pkl"),
        ({"offset": -1}, "damaged data.pkl"),
        ({"stride": (1,)}, "damaged data.pkl"),
        ({"numel": 10**15}, "storage of 1000000000000000"),
        ({"numel": 7}, "storage of 7"),
        ({"kind": "torch DoubleStorage"}, "torch.float64"),
        ({"kind": "torch ComplexFloatStorage"}, "torch.ComplexFloatStorage"),
        ({"key": "1"}, "storage '1' is missing"),
        ({"key": "../data.pkl"}, "is missing"),
        ({"call": "_rebuild_parameter"}, "damaged data.pkl"),
    ],
)
def test_numbers_that_do_not_fit_the_file(tmp_path, refused, numbers, says):
    path = archive(tmp_path / "w.pt", instruct(**numbers), FLOATS)
    refused(lambda: read_state_dict(path), "w.pt", says)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"epoch": 3, "w": torch.zeros(2)}, "'epoch' is a int"),
        ({"state_dict": {"w": torch.zeros(2)}}, "'state_dict' is a dict"),
        ([torch.zeros(2)], "holds a list"),
        (torch.zeros(2), "holds a View"),
        ({0: torch.zeros(2)}, "'0'"),
        ({("a", "b"): torch.zeros(2)}, "key of type tuple"),
    ],
)
def test_what_is_no_dict_of_tensors(tmp_path, refused, content, says):
    torch.save(content, tmp_path / "w.pt")
    refused(lambda: read_state_dict(tmp_path / "w.pt"), says, "torch.save(model.state_dict(), path)")


def test_a_whole_model_is_refused_by_name(tmp_path, refused):
    torch.save(torch.nn.Linear(2, 3), tmp_path / "w.pt")
    refused(lambda: read_state_dict(tmp_path / "w.pt"), "torch.nn.modules.linear.Linear", "state_dict()")


def test_compressed_records_are_not_unpacked(tmp_path, refused):
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", compression=zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", instruct(numel=2**20, shape=(2**20,), stride=(1,)))
        file.writestr("archive/data/0", bytes(4 * 2**20))
    assert (tmp_path / "bomb.pt").stat().st_size < 2**16
    refused(lambda: read_state_dict(tmp_path / "bomb.pt"), "data.pkl' is compressed or encrypted")
    path = archive(tmp_path / "data.pt", instruct(numel=2**20, shape=(2**20,), stride=(1,)), {})
    with zipfile.ZipFile(path, "a", compression=zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data/0", bytes(4 * 2**20))
    refused(lambda: read_state_dict(path), "data/0' is compressed or encrypted")


def patched(path, record, at, value):
    """The archive with four bytes of a record of its directory (or of its end, for None) overwritten."""
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\x05\x06")
    if record is not None:
        start = content.rindex(b"PK\x01\x02", 0, content.rindex(record.encode()))
    content[start + at : start + at + 4] = value.to_bytes(4, "little")
    path.write_bytes(content)
    return path


def test_a_record_that_claims_more_bytes_than_the_file_has(tmp_path, refused):
    """4 GB, which would be allocated before reading finds that they are not there."""
    size = 2**32 - 16
    path = archive(tmp_path / "w.pt", instruct(numel=size // 4, shape=(size // 4,), stride=(1,)), FLOATS)
    for at in (20, 24):
        patched(path, "archive/data/0", at, size)
    refused(lambda: read_state_dict(path), "'archive/data/0' lies outside the file")


@pytest.mark.parametrize("offset", [1, 2**30])
def test_a_directory_that_is_not_where_it_says(tmp_path, refused, offset):
    """Records then begin before the file does, or behind its end."""
    path = archive(tmp_path / "w.pt", instruct(), FLOATS)
    content = path.read_bytes()
    place = int.from_bytes(content[content.index(b"PK\x05\x06") + 16 :][:4], "little")
    refused(lambda: read_state_dict(patched(path, None, 16, place + offset)), "w.pt: ")


def test_a_record_that_begins_elsewhere(tmp_path, refused):
    path = archive(tmp_path / "w.pt", instruct(), FLOATS)
    refused(lambda: read_state_dict(patched(path, "archive/data/0", 42, 10)), "'archive/data/0' lies outside the file")
    refused(
        lambda: read_state_dict(patched(path, "archive/data/0", 42, 2**30)), "'archive/data/0' lies outside the file"
    )


def test_large_pickles_and_deep_stacks(tmp_path, refused, monkeypatch):
    path = archive(tmp_path / "deep.pt", b"\x80\x02" + b"N" * (instructions.MOST_PENDING + 1) + b".", {})
    refused(lambda: read_state_dict(path), "stack")
    monkeypatch.setattr(torch_files, "PICKLE_BYTES", 1000)
    path = archive(tmp_path / "large.pt", instruct() + bytes(1000), FLOATS)
    refused(lambda: read_state_dict(path), "data.pkl", "more than 1000")


def test_another_byte_order_is_refused(tmp_path, refused):
    refused(lambda: read_state_dict(archive(tmp_path / "w.pt", instruct(), FLOATS, byteorder="big")), "little-endian")
    assert len(read_state_dict(archive(tmp_path / "v.pt", instruct(), FLOATS, byteorder="little"))) == 1


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [["a/data.pkl", "b/data.pkl"], ["a/other"], ["a/data.pkl", "a/data.pkl"], []])
def test_other_archives_are_refused(tmp_path, refused, names):
    with zipfile.ZipFile(tmp_path / "some.pt", "w") as file:
        for name in names:
            file.writestr(name, instruct())
        file.writestr("note", "text")
    refused(lambda: read_state_dict(tmp_path / "some.pt"), "torch.save did not write")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "w.pt"
    state = OrderedDict(a=torch.arange(12.0).reshape(3, 4), b=torch.ones(5).half(), c=torch.arange(3))
    torch.save(state, path)
    save_file(dict(state), path.with_suffix(".safetensors"))
    return path


@settings(max_examples=60)
@given(suffix=st.sampled_from((".pt", ".safetensors")), data=st.data())
def test_any_damage_is_one_clear_error_or_none(tmp_path_factory, said, saved, suffix, data):
    original = saved.with_suffix(suffix).read_bytes()
    content = bytearray(original)
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[position] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))]
    path = tmp_path_factory.mktemp("damaged") / f"w{suffix}"
    path.write_bytes(content)
    text = said(lambda: [tensor.numel() for tensor in read_state_dict(path).values()])
    assert not text or str(path) in text


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_truncated_files(tmp_path, refused, saved, suffix, share):
    content = saved.with_suffix(suffix).read_bytes()
    (tmp_path / f"w{suffix}").write_bytes(content[: int(share * len(content))])
    refused(lambda: read_state_dict(tmp_path / f"w{suffix}"), f"w{suffix}", "damaged")


def test_a_file_that_shrinks_after_it_was_described(tmp_path, refused, saved):
    path = tmp_path / "w.pt"
    path.write_bytes(saved.read_bytes())
    read = read_state_dict(path)
    path.write_bytes(saved.read_bytes()[: read.forms["a"].stored.start + 5])
    refused(lambda: read["a"], "ends inside 'a'")


def test_paths_that_are_no_files(tmp_path, refused):
    refused(lambda: read_state_dict(tmp_path / "nowhere.pt"), "nowhere.pt", "no such file")
    refused(lambda: read_state_dict(tmp_path), "has none of model.safetensors", "pytorch_model.bin")
    (tmp_path / "model.safetensors").mkdir()
    refused(lambda: read_state_dict(tmp_path), "model.safetensors")


def test_links_out_of_a_directory_are_not_followed(tmp_path, refused, saved):
    (tmp_path / "pytorch_model.bin").symlink_to(saved)
    refused(lambda: read_state_dict(tmp_path), "outside the directory")
    # The user's own path may be a link, as those of the hub's cache are.
    assert len(read_state_dict(tmp_path / "pytorch_model.bin")) == 3


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (None, "weight_map"),
        ({}, "weight_map"),
        ({"a": 3}, "weight_map"),
        ({"a": "../w.pt"}, "outside the directory"),
        ({"a": "/etc/passwd"}, "outside the directory"),
        ({"a": "gone.pt"}, "gone.pt is missing"),
        ({"a": "one.pt", "z": "one.pt"}, "'z' is not in one.pt"),
        ({"a": "two.pt", "b": "one.pt", "c": "two.pt"}, "is in one.pt and in two.pt"),
    ],
)
def test_an_index_that_does_not_fit(tmp_path, refused, saved, table, says):
    for name in ("one.pt", "two.pt"):
        (tmp_path / name).write_bytes(saved.read_bytes())
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": table}))
    refused(lambda: read_state_dict(tmp_path), says)


def test_a_dtype_that_is_not_known(tmp_path, refused):
    save_file({"w": torch.zeros(2, dtype=torch.complex64)}, tmp_path / "w.safetensors")
    refused(lambda: read_state_dict(tmp_path / "w.safetensors"), "'w' is stored as C64")
