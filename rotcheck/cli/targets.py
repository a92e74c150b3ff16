"""What ``rotcheck run`` is pointed at: the built-in paths, ``module:attribute``, or a model."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rotcheck.errors import RotcheckError


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A subject with the name under which it is shown. The built-in subjects have the same attributes."""

    label: str
    subject: Any
    expected_failures: Mapping[str, str] = field(default_factory=dict)
    allow_undecided: Mapping[str, str] = field(default_factory=dict)


def subjects(
    target: str, *, everything: bool, seed: int, device: str, notify: Callable[[str], None] = lambda line: None
) -> Iterable[Any]:
    """Labelled subjects for what was typed; models are built while iterating, and `notify` hears what is left out.

    Raises
    ------
    RotcheckError
        When the target is neither a module attribute, a directory nor a hub name.
    """
    if not target:
        from rotcheck.subjects.builtin import builtin_subjects

        return builtin_subjects(everything=everything, seed=seed, device=device, notify=notify)
    module, colon, attribute = target.partition(":")
    if colon and all(part.isidentifier() for part in module.split(".")):
        return _from_module(module, attribute, target)
    _refuse_files(target)
    from rotcheck.cli.preflight import check_model
    from rotcheck.subjects.builtin import model_subjects

    check_model(target)
    return model_subjects(target, everything=everything, seed=seed, device=device, notify=notify)


@contextmanager
def importable_here() -> Iterator[None]:
    """The current directory first on ``sys.path``; a factory may import lazily, so for the whole run."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _refuse_files(target: str) -> None:
    path = Path(target).expanduser()
    if path.is_file():
        cure = f"{path.stem}:attribute" if path.suffix == ".py" else "its directory"
        raise RotcheckError(f"{target} is a file: give {cure}")
    looks_like_path = target.startswith((".", "/", "~")) or os.sep in target.rstrip(os.sep).replace("/", "", 1)
    if not path.is_dir() and looks_like_path:
        raise RotcheckError(f"no directory {target}: give a model directory, a hub name, or module:attribute")
    importable = target.isidentifier() and (target in sys.modules or importlib.util.find_spec(target) is not None)
    if not path.is_dir() and importable:
        raise RotcheckError(f"{target} is a module: name what to test in it, {target}:attribute")


def _from_module(name: str, attribute: str, target: str) -> list[Labelled]:
    module = _guarded(lambda: _import(name), f"importing {name}")
    value, callable_ = _guarded(lambda: _attribute(module, attribute, target), f"reading {target}")
    made = _guarded(value, f"{target}()") if callable_ else value
    return _guarded(lambda: _labelled(made, target), f"reading {target}")


def _attribute(value: Any, attribute: str, target: str) -> tuple[Any, bool]:
    """What is at the dotted path, and whether it is a function to call."""
    for part in attribute.split("."):
        if not hasattr(value, part):
            close = difflib.get_close_matches(part, [n for n in dir(value) if not n.startswith("_")], n=1)
            cure = f"did you mean {close[0]}?" if close else "name a subject, a list or dict of them, or a function"
            raise RotcheckError(f"{target}: {target.partition(':')[0]} has no attribute {part!r}: {cure}")
        value = getattr(value, part)
    return value, callable(value) and not isinstance(value, type) and not hasattr(value, "kind")


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # the module itself, or a package that it is in: anything else is missing inside it
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise RotcheckError(f"no module {name} in {os.getcwd()} or among the installed ones") from None
        raise


def _guarded(function: Callable[[], Any], what: str) -> Any:
    try:
        return function()
    except RotcheckError:
        raise
    # a stranger's code runs here, and it may raise anything or exit; KeyboardInterrupt passes
    except (Exception, SystemExit) as error:
        shown = traceback.TracebackException.from_exception(error)  # survives a __str__ that raises
        text = error.msg if isinstance(error, SyntaxError) else str(shown)
        first = next((line.strip() for line in str(text).splitlines() if line.strip()), "no message")
        raise RotcheckError(f"{what} raised {type(error).__name__}{_place(error, shown, function)}: {first}") from error


def _place(error: BaseException, shown: traceback.TracebackException, function: Callable[[], Any]) -> str:
    """`` at file:line`` in the stranger's code, or nothing when it is not known."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {error.filename}:{error.lineno}"
    code = getattr(function, "__code__", None)
    places = [(code.co_filename, code.co_firstlineno)] if code else []  # a call that fails before its first line
    places += [(frame.filename, frame.lineno) for frame in shown.stack]
    theirs = [place for place in places if place[0] != __file__ and not place[0].startswith("<frozen importlib")]
    return f" at {theirs[-1][0]}:{theirs[-1][1]}" if theirs else ""


def _labelled(value: Any, target: str) -> list[Labelled]:
    if isinstance(value, Mapping):
        pairs = [(str(key), subject) for key, subject in value.items()]
    elif isinstance(value, (list, tuple)):
        pairs = [(f"{target}[{index}]", subject) for index, subject in enumerate(value)]
    else:
        pairs = [(target, value)]
    if not pairs:
        raise RotcheckError(f"{target} is empty: give at least one subject")
    return [_one(label, subject) for label, subject in pairs]


def _one(label: str, subject: Any) -> Labelled:
    if hasattr(subject, "subject") and hasattr(subject, "label"):
        _check_subject(subject.label, subject.subject)
        return Labelled(
            label=subject.label,
            subject=subject.subject,
            expected_failures=getattr(subject, "expected_failures", {}),
            allow_undecided=getattr(subject, "allow_undecided", {}),
        )
    _check_subject(label, subject)
    return Labelled(label=label, subject=subject)


def _check_subject(label: str, subject: Any) -> None:
    """Raise unless it is one of our subjects, or of a kind that an installed check takes."""
    from rotcheck.registry import all_checks
    from rotcheck.subjects import CacheRotation, Codec, ModelPair, QuantizedLayer, Rotation, SlicedModel

    kind = getattr(subject, "kind", None)
    if isinstance(subject, type) or not isinstance(kind, str):
        what = f"the class {subject.__name__}" if isinstance(subject, type) else f"of type {type(subject).__name__}"
        raise RotcheckError(f"{label} is {what}, not a subject: make a rotcheck.Rotation or ModelPair of it")
    ours = {own.kind: own for own in (CacheRotation, Codec, ModelPair, QuantizedLayer, Rotation, SlicedModel)}
    if kind in ours and not isinstance(subject, ours[kind]):
        what = f"of type {type(subject).__name__} with kind {kind!r}"
        raise RotcheckError(f"{label} is {what}, not a rotcheck subject: make a rotcheck.subjects.{kind} of it")
    known = sorted({name for check in all_checks() for name in check.kinds}.union(ours))
    if kind not in known:
        raise RotcheckError(f"{label} has the unknown kind {kind!r}: checks are installed for {', '.join(known)}")
