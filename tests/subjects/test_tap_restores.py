"""After a tap the attribute is what and where it was: on the instance, the class or the module, whatever happened."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from functools import partial

import pytest
import torch

from rotcheck.bases import haar
from rotcheck.errors import SubjectError
from rotcheck.subjects.taps import tapped

D = 6
BASIS = haar(D, seed=1)
X = torch.randn(5, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
Y = X @ BASIS


def quantize(z):
    return z.round()


class Base:
    def inherited(self, z):
        return z.round()


class Engine(Base):
    def method(self, z):
        return z.round()

    @staticmethod
    def static(z):
        return z.round()

    @classmethod
    def of_class(cls, z):
        return z.round()

    from_partial = staticmethod(partial(torch.round, decimals=0))
    builtin = torch.round

    def __init__(self):
        self.own = quantize

    def run(self, name):
        return lambda x: getattr(self, name)(x @ BASIS)


NAMES = ("method", "inherited", "static", "of_class", "from_partial", "own")


@pytest.mark.parametrize("name", NAMES)
def test_an_instance_has_the_attributes_that_it_had(name):
    engine = Engine()
    before, on_class = dict(vars(engine)), dict(vars(Engine))
    torch.testing.assert_close(tapped(engine.run(name), engine, name, D)(X), Y)
    assert vars(engine) == before
    assert list(vars(engine)) == list(before)
    assert dict(vars(Engine)) == on_class


@pytest.mark.parametrize("name", [name for name in NAMES if name != "own"])
def test_a_class_has_the_attributes_that_it_had(name):
    engine, before = Engine(), dict(vars(Engine))
    torch.testing.assert_close(tapped(engine.run(name), Engine, name, D)(X), Y)
    assert dict(vars(Engine)) == before
    assert vars(Engine).get(name) is before.get(name)


def test_a_builtin_on_a_class_does_not_become_a_method():
    """``builtin = torch.round`` takes no self, so its spy must not either."""
    engine = Engine()
    rotate = tapped(lambda x: engine.builtin(x @ BASIS), Engine, "builtin", D)
    torch.testing.assert_close(rotate(X), Y)
    assert vars(Engine)["builtin"] is torch.round


def test_every_instance_of_a_tapped_class_is_seen():
    one, other = Engine(), Engine()

    def run(x):
        one.method(x[:, :2] @ torch.eye(2, dtype=x.dtype))
        other.method(x[:, 2:])

    torch.testing.assert_close(tapped(run, Engine, "method", D)(X), X)


def test_another_instance_is_not_seen():
    one, other = Engine(), Engine()
    with pytest.raises(SubjectError, match=r"Engine\.method was never called"):
        tapped(lambda x: other.method(x), one, "method", D)(X)


def test_an_instance_with_its_own_attribute_hides_the_one_that_is_tapped_on_the_class():
    engine = Engine()
    engine.method = quantize
    with pytest.raises(SubjectError, match=r"Engine\.method was never called"):
        tapped(engine.run("method"), Engine, "method", D)(X)
    assert engine.method is quantize


@pytest.mark.parametrize("owner", ["instance", "class", "module"])
def test_it_is_restored_when_the_code_raises(owner):
    module = types.ModuleType("script")
    module.method = quantize
    engine = Engine()
    target = {"instance": engine, "class": Engine, "module": module}[owner]
    before = dict(vars(target))

    def run(x):
        (module if owner == "module" else engine).method(x)
        raise ZeroDivisionError("after the tap")

    with pytest.raises(ZeroDivisionError, match="after the tap"):
        tapped(run, target, "method", D)(X)
    assert dict(vars(target)) == before


def test_it_is_restored_when_the_quantiser_raises_and_works_the_next_time():
    class Fragile:
        broken = True

        def quantize(self, z):
            if self.broken:
                raise OverflowError("codes")
            return z.round()

    engine = Fragile()
    rotate = tapped(lambda x: engine.quantize(x @ BASIS), engine, "quantize", D)
    with pytest.raises(OverflowError, match="codes"):
        rotate(X)
    assert "quantize" not in vars(engine)
    engine.broken = False
    torch.testing.assert_close(rotate(X), Y)


def test_it_is_restored_when_the_code_takes_the_attribute_away():
    engine = Engine()

    def run(x):
        engine.method(x)
        del engine.method

    torch.testing.assert_close(tapped(run, engine, "method", D)(X), X)
    assert "method" not in vars(engine)
    assert engine.method.__func__ is Engine.method


def test_nothing_is_replaced_before_or_between_calls():
    engine = Engine()
    rotate = tapped(engine.run("method"), engine, "method", D)
    assert "method" not in vars(engine)
    for n in (1, 3, 5):
        torch.testing.assert_close(rotate(X[:n]), Y[:n])
        assert "method" not in vars(engine)


def test_functions_of_a_module_are_tapped_where_the_code_looks_them_up(tmp_path, monkeypatch):
    """``from library import quantize`` puts the name into the script, and it is there that it must be tapped."""
    (tmp_path / "tap_library.py").write_text("def quantize(z):\n    return z.round()\n", encoding="utf-8")
    (tmp_path / "tap_script.py").write_text(
        "from tap_library import quantize\n\n\ndef roundtrip(x, basis):\n    return quantize(x @ basis) @ basis.T\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import tap_library
    import tap_script

    try:
        run = partial(tap_script.roundtrip, basis=BASIS)
        torch.testing.assert_close(tapped(run, tap_script, "quantize", D)(X), Y)
        assert tap_script.quantize is tap_library.quantize
        with pytest.raises(SubjectError, match=r"tap_library\.quantize was never called"):
            tapped(run, tap_library, "quantize", D)(X)
        assert vars(tap_library)["quantize"] is tap_script.quantize
    finally:
        del sys.modules["tap_library"], sys.modules["tap_script"]


def test_a_frozen_dataclass_can_be_tapped():
    @dataclass(frozen=True)
    class Frozen:
        basis: torch.Tensor

        def quantize(self, z):
            return z.round()

    engine = Frozen(BASIS)
    torch.testing.assert_close(tapped(lambda x: engine.quantize(x @ engine.basis), engine, "quantize", D)(X), Y)
    assert list(vars(engine)) == ["basis"]


def test_the_forward_of_a_torch_module_can_be_tapped():
    model = torch.nn.Sequential(torch.nn.Linear(D, D, bias=False, dtype=torch.float64), torch.nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(BASIS.T)
    before = dict(vars(model[1]))
    torch.testing.assert_close(tapped(model, model[1], "forward", D)(X), Y)
    assert vars(model[1]) == before


def test_a_spied_function_keeps_its_name_and_attributes():
    def documented(z):
        """What it says."""
        return z

    documented.bits = 3
    module, seen = types.SimpleNamespace(quantize=documented), []

    def run(x):
        seen.append((module.quantize.__name__, module.quantize.__doc__, module.quantize.bits))
        module.quantize(x)

    tapped(run, module, "quantize", D)(X)
    assert seen == [("documented", "What it says.", 3)]


def test_a_tap_inside_a_tap_sees_what_it_should():
    engine = Engine()
    inner = tapped(engine.run("method"), engine, "method", D)
    outer = tapped(lambda x: engine.static(2 * inner(x)), engine, "static", D)
    torch.testing.assert_close(outer(X), 2 * Y)
    assert {"method", "static"}.isdisjoint(vars(engine))
