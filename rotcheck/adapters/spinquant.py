"""The rotations that SpinQuant learns: its ``R.bin``, checked before anything is rotated with it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rotcheck.adapters.state_dicts import StateDict, read_state_dict
from rotcheck.errors import RotcheckError
from rotcheck.tolerance import UNIT_ROUNDOFF, Tolerance, dtype_name

PRODUCTS = 4
"""Products of length n behind each entry of a matrix kept orthogonal: QR applies each reflector twice, by two."""

_SEED = 0
_VECTORS = 8
_STEPS = 60


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SpinQuantRotations:
    """R1 and R2 of a model. R3 and R4 are Hadamard matrices that SpinQuant applies online; the file has neither.

    Columns are axes. The residual stream is ``y = x @ r1``: SpinQuant turns embeddings into ``E @ r1``, readers of the
    stream and the head into ``W @ r1``, and writers into ``r1.T @ W``. Within every head of layer l the values are
    ``v @ r2[l]``: rows h of the value projection become ``r2[l].T @ W_v[h]``, and columns h of the output projection
    ``W_o[:, h] @ r2[l]``. All KV heads of a layer share that one matrix.

    Parameters
    ----------
    r1
        (d, d) float64.
    r2
        One (D, D) float64 per layer.
    stored
        Name of the dtype in the file: float32, where SpinQuant wrote it.
    errors
        ``|U.T @ U - I|_2`` of r1 and of each r2, in units of ``u`` of the stored dtype.

    References
    ----------
    Liu et al., "SpinQuant", arXiv:2405.16406. facebookresearch/SpinQuant: ``optimize_rotation.py`` writes the file,
    ``eval_utils/rotation_utils.py`` applies it.
    """

    r1: Tensor
    r2: tuple[Tensor, ...]
    stored: str
    errors: tuple[float, ...]

    def __repr__(self) -> str:
        size, width = self.r1.shape[0], self.r2[0].shape[0]
        return (
            f"SpinQuantRotations(R1 ({size}, {size}), {len(self.r2)} R2 ({width}, {width}), {self.stored}, "
            f"orthogonal to {max(self.errors):.3g} u)"
        )


def read_rotations(path: str | os.PathLike[str], config: Any) -> SpinQuantRotations:
    """Read ``R.bin`` for the model with this configuration.

    SpinQuant itself checks nothing. A layer whose R2 is missing it rotates by a Hadamard matrix instead, without a
    word, and a matrix that has drifted from orthogonality changes the model as much as it has drifted.

    Parameters
    ----------
    path
        What ``torch.save`` wrote: the tensors ``R1`` and ``model.layers.{l}.self_attn.R2``. A safetensors file with the
        same names will do. No code of it is run.
    config
        Of the stock transformers model.

    Raises
    ------
    RotcheckError
        A name missing or left over, another shape than the configuration gives, mixed or integer dtypes, entries that
        are not finite, or ``|U.T @ U - I|_2 > s (u_storage + sqrt(4 n) u_accumulate)`` of the stored dtype: the bound
        of the check ``orthogonality`` (ROT101).
    """
    state = read_state_dict(path)
    size, width = config.hidden_size, _head_width(config)
    names = ("R1", *(f"model.layers.{layer}.self_attn.R2" for layer in range(config.num_hidden_layers)))
    for name in names:
        if name not in state.forms:
            cure = (
                "the file is for another model, or SpinQuant would use a Hadamard matrix here" if name != "R1" else ""
            )
            raise RotcheckError(
                f"{path}: {name} is missing; {cure or 'pass the R.bin that optimize_rotation.py wrote'}"
            )
    if extra := sorted(set(state.forms) - set(names)):
        raise RotcheckError(
            f"{path}: {extra[0]!r} is no rotation of a model with {len(names) - 1} layers; check config"
        )
    stored = _dtype(path, state)
    matrices, errors = [], []
    for name in names:
        expected = (size, size) if name == "R1" else (width, width)
        if state.forms[name].shape != expected:
            raise RotcheckError(
                f"{path}: {name} has shape {state.forms[name].shape}, the config says {expected}; "
                "pass the config of the model that the rotations were learned for"
            )
        matrix = state[name].double()
        errors.append(_orthogonal(path, name, matrix, stored))
        matrices.append(matrix)
    return SpinQuantRotations(r1=matrices[0], r2=tuple(matrices[1:]), stored=stored, errors=tuple(errors))


def orthogonality_error(matrix: Tensor) -> float:
    """``|U.T @ U - I|_2`` of a float64 matrix: from below by block power iteration, and exactly up to 64 columns.

    What is returned is ``max |Ritz value|`` of a symmetric matrix, which its 2-norm is never below: a matrix that is
    refused for it is refused rightly. The eigenvalues themselves would take a minute at n = 8192.
    """
    n = matrix.shape[0]
    error = matrix.T @ matrix - torch.eye(n, dtype=torch.float64)
    if n <= _VECTORS**2:
        return torch.linalg.eigvalsh(error).abs().max().item()
    generator = torch.Generator().manual_seed(_SEED)
    block = torch.randn(n, _VECTORS, dtype=torch.float64, generator=generator)
    for _ in range(_STEPS):
        block = torch.linalg.qr(error @ block).Q
    return torch.linalg.eigvalsh(block.T @ error @ block).abs().max().item()


def _orthogonal(path: str | os.PathLike[str], name: str, matrix: Tensor, stored: str) -> float:
    if not matrix.isfinite().all():
        raise RotcheckError(f"{path}: {name} has NaN or infinite entries; learn the rotations again")
    unit = UNIT_ROUNDOFF[stored]
    allowed = Tolerance(storage=stored, length=PRODUCTS * matrix.shape[0])
    error = orthogonality_error(matrix)
    if not error <= allowed.value:
        raise RotcheckError(
            f"{path}: {name} is not orthogonal, |U.T U - I|_2 is {error:.2e} = {error / unit:.3g} u of {stored}, "
            f"allowed {allowed.value:.2e} = {allowed.derivation}; orthogonalise it in float64 with torch.linalg.qr"
        )
    return error / unit


def _dtype(path: str | os.PathLike[str], state: StateDict) -> str:
    found = {str(form.dtype).removeprefix("torch.") for form in state.forms.values()}
    if len(found) > 1 or not found <= set(UNIT_ROUNDOFF):
        raise RotcheckError(
            f"{path}: rotations are stored as {', '.join(sorted(found))}; save all as one of {', '.join(UNIT_ROUNDOFF)}"
        )
    return dtype_name(found.pop())


def _head_width(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
