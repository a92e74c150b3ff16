"""A pickle read as a list of instructions and never run: the ones that ``torch.save`` writes for a state dict."""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from rotcheck.errors import RotcheckError

CURE = "save a plain state dict: torch.save(model.state_dict(), path)"

_STORAGES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "torch DoubleStorage": torch.float64,
        "torch FloatStorage": torch.float32,
        "torch HalfStorage": torch.float16,
        "torch BFloat16Storage": torch.bfloat16,
        "torch LongStorage": torch.int64,
        "torch IntStorage": torch.int32,
        "torch ShortStorage": torch.int16,
        "torch CharStorage": torch.int8,
        "torch ByteStorage": torch.uint8,
        "torch BoolStorage": torch.bool,
    }
)
MOST_PENDING = 2**14
"""Values on the stack at most: items of a dict are set a thousand at a time."""

_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_DICT = "collections OrderedDict"


@dataclass(frozen=True, kw_only=True)
class View:
    """A tensor as a window on a storage: what the file says, before any of it is allocated.

    Parameters
    ----------
    key
        Name of the storage in the archive.
    dtype
        Of the storage.
    numel
        Elements that the storage is said to have.
    offset, shape, stride
        Counted in elements.
    """

    key: str
    dtype: torch.dtype
    numel: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def span(self) -> int:
        """Elements of the storage from the first to the last that the window shows; 0 for an empty tensor."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))


@dataclass(frozen=True, kw_only=True)
class _Global:
    name: str


@dataclass(frozen=True, kw_only=True)
class _Storage:
    key: str
    dtype: torch.dtype
    numel: int


class _Mark:
    """Where the items of the next tuple, list or dict begin."""


def interpret(pickle: bytes, where: str) -> Any:
    """What a state dict's pickle describes, with a `View` in place of each tensor.

    Nothing is imported, called or allocated on its behalf: an instruction outside the few that ``torch.save`` writes
    for dicts of tensors and plain values ends the reading.

    Parameters
    ----------
    pickle
        The bytes of ``data.pkl``.
    where
        Names the file, for messages.

    Raises
    ------
    RotcheckError
        For any other instruction, a global that is not a tensor's, arguments of the wrong type, or a damaged pickle.
    """
    machine = _Machine(where)
    try:
        for opcode, argument, _ in pickletools.genops(pickle):
            machine.step(opcode.name, argument)
    except RotcheckError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError) as error:
        # What the disassembler raises for bytes that are no pickle, and a stack for instructions in a wrong order.
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise RotcheckError(f"{where}: damaged data.pkl ({said[:120]}); copy the file again") from error
    return machine.result


class _Machine:
    """The stack and the memo of a pickle, holding descriptions only."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.result: Any = None

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _VALUES:
            stack.append(argument if _VALUES[name] is None else _VALUES[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            items = self.from_mark()
            stack.append(tuple(items))
        elif name == "APPEND":
            self.extend([stack.pop()])
        elif name == "APPENDS":
            self.extend(self.from_mark())
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self.update([key, value])
        elif name == "SETITEMS":
            self.update(self.from_mark())
        elif name == "GLOBAL":
            stack.append(self.named(argument))
        elif name == "BINPERSID":
            stack.append(self.storage(stack.pop()))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(self.called(function, arguments))
        elif name == "BUILD":
            # The state of an OrderedDict is its _metadata: versions of modules, which no tensor depends on.
            stack.pop()
            self.is_a(stack[-1], dict, "BUILD")
        elif name == "STOP":
            self.result = stack.pop()
        elif name != "PROTO":
            raise RotcheckError(f"{self.where}: pickle instruction {name} does not belong in a state dict; {CURE}")
        if len(stack) > MOST_PENDING:
            raise RotcheckError(f"{self.where}: more than {MOST_PENDING} values wait on the pickle's stack; {CURE}")

    def from_mark(self) -> list[Any]:
        start = max(index for index, item in enumerate(self.stack) if isinstance(item, _Mark))
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def extend(self, items: list[Any]) -> None:
        self.is_a(self.stack[-1], list, "APPEND")
        self.stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        self.is_a(self.stack[-1], dict, "SETITEM")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Other keys are never a tensor's name, and a nest of tuples takes exponential time to hash.
            if not isinstance(key, str | int):
                raise RotcheckError(f"{self.where}: a dict has a key of type {type(key).__name__}, not a name; {CURE}")
            self.stack[-1][key] = value

    def named(self, name: str) -> _Global:
        if name not in _STORAGES and name not in (_TENSOR, _PARAMETER, _DICT):
            raise RotcheckError(f"{self.where}: refers to {name.replace(' ', '.')[:80]!r}, which is not run; {CURE}")
        return _Global(name=name)

    def storage(self, identity: Any) -> _Storage:
        kind, storage, key, _, numel = identity
        if kind != "storage" or storage.name not in _STORAGES or not isinstance(key, str):
            raise TypeError("a persistent id that is no storage")
        return _Storage(key=key, dtype=_STORAGES[storage.name], numel=_size(numel))

    def called(self, function: Any, arguments: Any) -> Any:
        if function.name == _DICT and arguments == ():
            return {}
        if function.name == _PARAMETER and isinstance(arguments[0], View):
            return arguments[0]
        if function.name == _TENSOR and isinstance(arguments[0], _Storage):
            storage, offset, shape, stride = arguments[:4]
            shape, stride = tuple(map(_size, shape)), tuple(map(_size, stride))
            if len(shape) != len(stride):
                raise TypeError("a tensor with a stride for another number of dimensions")
            return View(
                key=storage.key,
                dtype=storage.dtype,
                numel=storage.numel,
                offset=_size(offset),
                shape=shape,
                stride=stride,
            )
        raise TypeError(f"{function.name} with arguments that torch.save does not write")

    def is_a(self, value: Any, kind: type, name: str) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"{name} on a {type(value).__name__}")


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"a size or an offset of {value!r}")
    return value


_VALUES: Mapping[str, Callable[[], Any] | None] = MappingProxyType(
    {
        "MARK": _Mark,
        "EMPTY_DICT": dict,
        "EMPTY_LIST": list,
        "EMPTY_TUPLE": tuple,
        "NONE": lambda: None,
        "NEWTRUE": lambda: True,
        "NEWFALSE": lambda: False,
        **dict.fromkeys(("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), None),
    }
)
"""Instructions that push a value: what makes it, or None where it is the instruction's argument."""
