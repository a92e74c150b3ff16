"""A target is a subject, a list or dict of them, or a function; anything else is refused in one line."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("target", "labels"),
    [
        ("mine:right", ["mine:right"]),
        ("mine:several", ["mine:several[0]", "mine:several[1]"]),
        ("mine:named", ["the right one", "the blind one"]),
        ("mine:factory", ["the right one", "the blind one"]),
        ("mine:known", ["known bug"]),
        ("mine:Holder.inner", ["mine:Holder.inner"]),
    ],
)
def test_labels(call, target, labels):
    table = call("run", target, "--select", "isometry").stdout.splitlines()[1:]
    assert [line.rsplit("  ", 1)[0].strip() for line in table[: len(labels)]] == labels


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("mine:rihgt", "mine:rihgt: mine has no attribute 'rihgt': did you mean right?"),
        ("mine:", "mine:: mine has no attribute ''"),
        ("mine:number", "mine:number is of type int, not a subject"),
        ("mine:BASIS", "mine:BASIS is of type Tensor, not a subject"),
        ("mine:rotcheck.Rotation", "mine:rotcheck.Rotation is the class Rotation, not a subject"),
        ("mine:empty", "mine:empty is empty"),
        ("mine:raising", "mine:raising() raised KeyError at "),
        ("mine:needs_argument", "mine:needs_argument() raised TypeError at "),
        ("absent:x", "no module absent in "),
        ("mine.absent:x", "no module mine.absent in "),
        ("mine", "mine is a module: name what to test in it, mine:attribute"),
        ("mine.py", "mine.py is a file: give mine:attribute"),
        ("./absent", "no directory ./absent: give a model directory, a hub name, or module:attribute"),
        ("a/b/c", "no directory a/b/c"),
    ],
)
def test_refused(refused, target, text):
    assert refused("run", target).startswith(text)


def test_a_module_that_fails_names_its_line(refused, tmp_path):
    (tmp_path / "bad_module.py").write_text("x = 1\ny = x / 0\n", encoding="utf-8")
    message = refused("run", "bad_module:x")
    assert message.endswith("bad_module.py:2: division by zero")


def test_a_module_with_a_syntax_error(refused, tmp_path):
    (tmp_path / "bad_syntax.py").write_text("def (:\n", encoding="utf-8")
    assert refused("run", "bad_syntax:x").startswith("importing bad_syntax raised SyntaxError")


def test_what_a_module_lacks_is_not_the_module(refused, tmp_path):
    (tmp_path / "bad_import.py").write_text("import not_there_at_all\n", encoding="utf-8")
    message = refused("run", "bad_import:x")
    assert message.startswith("importing bad_import raised ModuleNotFoundError")
    assert "not_there_at_all" in message


def test_an_empty_directory_is_no_model(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in refused("run", str(tmp_path / "empty"))
