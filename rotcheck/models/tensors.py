"""Reading a linear map or a norm of a model by its path, whether it is a module or one of many in a parameter."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from rotcheck.errors import RotcheckError


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear:
    """Weight and bias of a linear map ``y = x @ W.T + b``, with the names that they have in the state dict.

    Attributes
    ----------
    path
        As declared.
    weight
        W (out, in), or (experts, out, in) for a parameter that holds one matrix per expert; (rows, d) of an embedding.
    bias
        b (out,), or ``None``.
    module
        The module that holds them, or ``None`` for a parameter.
    """

    path: str
    weight: Tensor
    bias: Tensor | None
    module: nn.Module | None

    @property
    def weight_name(self) -> str:
        return self.path if self.module is None else f"{self.path}.weight"

    @property
    def bias_name(self) -> str:
        return f"{self.path}.bias"

    @property
    def embedding(self) -> bool:
        """Whether it is a table of rows rather than a map."""
        return isinstance(self.module, nn.Embedding)


def linear(model: nn.Module, path: str) -> Linear:
    """The linear map at a path: a module with a ``weight``, or a parameter.

    Raises
    ------
    RotcheckError
        The model has nothing of the kind there.
    """
    parent, _, leaf = path.rpartition(".")
    try:
        found = getattr(model.get_submodule(parent), leaf)
    except AttributeError as error:
        raise RotcheckError(
            f"{type(model).__name__} has no {path}: its declaration names what is not there ({error})"
        ) from error
    if isinstance(found, Tensor):
        return Linear(path=path, weight=found, bias=None, module=None)
    weight = getattr(found, "weight", None)
    if not isinstance(weight, Tensor):
        raise RotcheckError(f"{path} is a {type(found).__name__} without a weight; declare a linear map")
    return Linear(path=path, weight=weight, bias=getattr(found, "bias", None), module=found)


def norm(model: nn.Module, path: str) -> nn.Module:
    """The norm at a path: a module with an ``eps``, under either of its names.

    Raises
    ------
    RotcheckError
        The model has nothing of the kind there.
    """
    try:
        found = model.get_submodule(path)
    except AttributeError as error:
        raise RotcheckError(
            f"{type(model).__name__} has no {path}: its declaration names what is not there ({error})"
        ) from error
    if not hasattr(found, "eps") and not hasattr(found, "variance_epsilon"):
        raise RotcheckError(f"{path} is a {type(found).__name__} without an eps; declare a norm")
    return found
