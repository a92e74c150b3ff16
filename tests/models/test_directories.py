"""Directories are written at once or not at all, and read without trusting them."""

from __future__ import annotations

import pytest
from safetensors import SafetensorError

from rotcheck.errors import RotcheckError
from rotcheck.models.directories import JSON_BYTES, json_object, plain_file, readable, written_at_once


def names(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_files_appear_together(tmp_path):
    with written_at_once(tmp_path / "new") as partial:
        (partial / "a").write_text("1")
        assert partial.parent == tmp_path
        assert not (tmp_path / "new").exists()
        (partial / "b").write_text("2")
    assert names(tmp_path) == ["new", "new/a", "new/b"]


def failing(target, error):
    with written_at_once(target) as partial:
        (partial / "a").write_text("1")
        raise error


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), RotcheckError("no")])
def test_an_error_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)):
        failing(tmp_path / "deep" / "new", error)
    assert names(tmp_path) == ["deep"]


def test_an_error_leaves_an_empty_target_empty(tmp_path):
    (tmp_path / "new").mkdir()
    with pytest.raises(OSError, match="full"):
        failing(tmp_path / "new", OSError("full"))
    assert names(tmp_path) == ["new"]


def test_what_is_there_is_kept(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = names(tmp_path)
    for name, says in (("taken", "is not empty"), ("file", "is not a directory"), ("link", "is not a directory")):
        with pytest.raises(RotcheckError, match=says), written_at_once(tmp_path / name):
            pytest.fail("the block ran")
    assert names(tmp_path) == before


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", ".", "sub/file", "a/../b", ""])
def test_names_that_lead_out(tmp_path, name):
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "root" / "sub" / "file").write_text("x")
    (tmp_path / "secret").write_text("x")
    with pytest.raises(RotcheckError, match=r"leads outside the directory|is missing"):
        plain_file(tmp_path / "root", name)


def test_a_link_may_lead_to_a_file_inside(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "inside").symlink_to(tmp_path / "a")
    assert plain_file(tmp_path, "inside").read_text() == "x"


def test_a_link_may_not_lead_out(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "root" / "a").symlink_to(tmp_path / "secret")
    with pytest.raises(RotcheckError, match="'a' leads outside the directory; copy the file into it"):
        plain_file(tmp_path / "root", "a")


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "not valid JSON"), ("[1]", "holds a JSON list"), ("3", "holds a JSON int"), ("[" * 10**5, "not valid JSON")],
)
def test_json_that_is_no_object(tmp_path, text, says):
    (tmp_path / "it.json").write_text(text)
    with pytest.raises(RotcheckError, match=rf"it\.json: {says}.*; do it again"):
        json_object(tmp_path / "it.json", cure="do it again")


def test_json_of_any_size_is_not_read(tmp_path):
    with (tmp_path / "it.json").open("wb") as file:
        file.truncate(JSON_BYTES + 1)
    with pytest.raises(RotcheckError, match=f"{JSON_BYTES + 1} bytes of JSON, more than {JSON_BYTES}"):
        json_object(tmp_path / "it.json", cure="")


def test_an_object_is_read(tmp_path):
    (tmp_path / "it.json").write_text('{"a": [1, null]}')
    assert json_object(tmp_path / "it.json", cure="") == {"a": [1, None]}


def test_damage_is_named_and_other_errors_pass(tmp_path):
    with pytest.raises(RotcheckError, match=r"damaged safetensors file \(header\); do it again"), readable(
        tmp_path, cure="do it again"
    ):  # fmt: skip
        raise SafetensorError("header")
    with pytest.raises(KeyError), readable(tmp_path, cure=""):
        raise KeyError("a")
