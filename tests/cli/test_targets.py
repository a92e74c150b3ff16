"""A target is a subject, a list or dict of them, or a function; anything else is refused in one line."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint

import pytest

from rotcheck import registry

FOREIGN = """
from types import SimpleNamespace
from rotcheck.checking import Measurement, check
from rotcheck.outcome import Allowance, Distance

@check(code="FOO101", kinds=["Foo"])
def foo(subject, witness):
    '''Passes.'''
    allowed = Allowance(value=1e-6, derivation="given")
    return Measurement(claim=Distance(name="right", error=0.0), rivals=(), allowed=allowed)

it = SimpleNamespace(kind="Foo")
"""


@pytest.fixture(autouse=True)
def forget_modules():
    """Modules of one temporary directory are not those of the next."""
    before = set(sys.modules)
    yield
    for name in {"stranger", "holder", "odd", "plug"} & (set(sys.modules) - before):
        del sys.modules[name]


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
        ("mine:needs_argument", "mine:needs_argument() raised TypeError at {here}/mine.py:34: "),
        ("absent:x", "no module absent in "),
        ("mine.absent:x", "no module mine.absent in "),
        ("mine", "mine is a module: name what to test in it, mine:attribute"),
        ("mine.py", "mine.py is a file: give mine:attribute"),
        ("./absent", "no directory ./absent: give a model directory, a hub name, or module:attribute"),
        ("a/b/c", "no directory a/b/c"),
    ],
)
def test_refused(refused, tmp_path, target, text):
    assert refused("run", target).startswith(text.replace("{here}", str(tmp_path)))


def test_a_module_that_fails_names_its_line(refused, tmp_path):
    (tmp_path / "bad_module.py").write_text("x = 1\ny = x / 0\n", encoding="utf-8")
    message = refused("run", "bad_module:x")
    assert message.endswith("bad_module.py:2: division by zero")


def test_a_module_with_a_syntax_error(refused, tmp_path):
    (tmp_path / "bad_syntax.py").write_text("def (:\n", encoding="utf-8")
    assert refused("run", "bad_syntax:x").startswith(
        f"importing bad_syntax raised SyntaxError at {tmp_path / 'bad_syntax.py'}:1: "
    )


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("class Odd(Exception): pass\n{}raise Odd('one\\ntwo')", "Odd at {here}: one"),
        ("\n{}undefined", "NameError at {here}: name 'undefined' is not defined"),
        ("\n{}open('not/there')", "FileNotFoundError at {here}: [Errno 2] No such file"),
        ("import sys\n{}sys.exit(3)", "SystemExit at {here}: 3"),
        ("class Mute(Exception):\n    def __str__(self): raise self\n{}raise Mute", "Mute at {here}: <exception str()"),
    ],
)
@pytest.mark.parametrize("place", ["module", "factory", "property"])
def test_whatever_a_stranger_raises_is_one_line(refused, tmp_path, statement, said, place):
    before, _, after = statement.rpartition("\n")
    wrapped = {
        "module": after.format(""),
        "factory": "def made():\n    " + after.format(""),
        "property": "class Made:\n  @property\n  def kind(self):\n    " + after.format("") + "\nmade = Made()",
    }[place]
    text = f"{before}\n{wrapped}\n"
    (tmp_path / "stranger.py").write_text(text, encoding="utf-8")
    line = next(n for n, row in enumerate(text.splitlines(), 1) if after.format("") in row)
    start = {"module": "importing stranger", "factory": "stranger:made()", "property": "reading stranger:made"}[place]
    expected = f"{start} raised {said}".replace("{here}", f"{tmp_path / 'stranger.py'}:{line}")
    assert refused("run", "stranger:made").startswith(expected)


def test_a_property_that_raises(refused, tmp_path):
    lines = [
        "class Holder:",
        "    @property",
        "    def inner(self):",
        "        raise ValueError('no')",
        "it = Holder()",
    ]
    (tmp_path / "holder.py").write_text("\n".join(lines), encoding="utf-8")
    assert refused("run", "holder:it.inner") == (
        f"reading holder:it.inner raised ValueError at {tmp_path / 'holder.py'}:4: no"
    )


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("Rotation", "odd:it is of type SimpleNamespace with kind 'Rotation', not a rotcheck subject"),
        ("SlicedModel", "odd:it is of type SimpleNamespace with kind 'SlicedModel', not a rotcheck subject"),
        (
            "Codec",
            "odd:it is of type SimpleNamespace with kind 'Codec', not a rotcheck subject: make a rotcheck.subjects.",
        ),
        (
            "Foo",
            "odd:it has the unknown kind 'Foo': checks are installed for CacheRotation, Codec, ModelPair, Quant",
        ),
    ],
)
@pytest.mark.parametrize("wrap", ["{}", "[{}]", "Labelled(label='odd:it', subject={})"])
def test_a_kind_is_not_enough(refused, tmp_path, kind, text, wrap):
    head = "from types import SimpleNamespace\nfrom rotcheck.cli.targets import Labelled\n"
    made = wrap.format(f"SimpleNamespace(kind={kind!r})")
    (tmp_path / "odd.py").write_text(f"{head}it = {made}\n", encoding="utf-8")
    assert refused("run", "odd:it").replace("[0]", "").startswith(text)


def test_a_kind_of_an_installed_check_is_a_subject(call, tmp_path, monkeypatch):
    (tmp_path / "plug.py").write_text(FOREIGN, encoding="utf-8")
    entry = EntryPoint(name="plug", value="plug", group=registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    result = call("run", "plug:it")
    assert result.exit_code == 0, result.output
    assert "1 passed" in result.stdout


def test_what_a_module_lacks_is_not_the_module(refused, tmp_path):
    (tmp_path / "bad_import.py").write_text("import not_there_at_all\n", encoding="utf-8")
    message = refused("run", "bad_import:x")
    assert message.startswith("importing bad_import raised ModuleNotFoundError")
    assert "not_there_at_all" in message


def test_an_empty_directory_is_no_model(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in refused("run", str(tmp_path / "empty"))
