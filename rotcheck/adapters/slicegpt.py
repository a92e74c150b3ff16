"""Models that SliceGPT sliced (microsoft/TransformerCompression, and forks of it), read into our sliced model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from rotcheck.adapters.slicegpt_json import compare, read_slicing_json
from rotcheck.adapters.slicegpt_layout import CURE, bases_of, names_of, width_of
from rotcheck.adapters.state_dicts import Form, read_state_dict
from rotcheck.errors import RotcheckError
from rotcheck.models import architecture_of, sites
from rotcheck.models.loading import quiet
from rotcheck.slicing.sliced import skeleton

EPS = 1e-5
"""What SliceGPT's norm adds to the mean square, whatever the base model's norm added."""

_EPS_FIELDS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon")
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SlicedRead:
    """What a checkpoint of SliceGPT holds, in our names and in the order of our sites.

    SliceGPT rotates as we do: embeddings ``E @ Q[:, :w]``, readers ``W @ Q[:, :w]``, writers ``Q[:, :w].T @ W`` and
    ``Q[:, :w].T @ b``, and the residual passes ``x @ S``. Norms have no parameters, and the head has the final norm's
    bias.

    Parameters
    ----------
    widths
        Of each site, from the tensors.
    site_bases
        Index of each site's basis: a new one behind every shortcut that is stored, and the same one where there is
        none. SliceGPT stores one between all sites; its fork's global and k-block models store few.
    norm_divisor
        The original hidden size, at every site.
    norm_eps
        1e-5, which SliceGPT has in its code.
    config_eps
        What the base configuration says; ``None`` where it says nothing.
    dtype
        The widest of the tensors' dtypes.
    tensors
        By our parameter names, in the dtypes of the file.
    notes
        What a diagnosis has to know, one sentence each.
    """

    widths: tuple[int, ...]
    site_bases: tuple[int, ...]
    norm_divisor: float
    norm_eps: float
    config_eps: float | None
    dtype: torch.dtype
    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"SlicedRead({len(self.tensors)} tensors, widths {min(self.widths)} to {max(self.widths)}, {self.dtype})"


def read_sliced(
    weights_path: str | os.PathLike[str],
    base_config: PreTrainedConfig,
    slicing_json: str | os.PathLike[str] | None = None,
) -> SlicedRead:
    """Read ``{model}_{sparsity}.pt``, or the safetensors files of SliceGPT's later versions. No code of it is run.

    Widths come from the tensors, and the JSON file, where there is one, has to agree with them. Names and shapes are
    checked against the sliced model that they describe before any tensor is read.

    Parameters
    ----------
    weights_path
        See :func:`rotcheck.adapters.read_state_dict`.
    base_config
        Of the stock model that was sliced.
    slicing_json
        ``{model}_{sparsity}.json``; by default the file of that name beside `weights_path`, if there is one.

    Raises
    ------
    RotcheckError
        Names, shapes, dtypes or widths that do not belong together, entries that are not finite, norm gains that were
        not folded, or a file that cannot be read safely.

    References
    ----------
    microsoft/TransformerCompression, ``src/slicegpt``: ``rotate.py``, ``layernorm_fusion.py``, ``modules.py`` (eps and
    divisor), ``model_adapter.py`` (``SlicingConfig``), and ``experiments/run_slicegpt.py`` (the files).
    """
    state = read_state_dict(weights_path)
    architecture = architecture_of(base_config)
    found = sites(architecture, base_config)
    names, notes = names_of(weights_path, state, architecture, found)
    forms = {ours: state.forms[theirs] for ours, theirs in names.items()}
    widths = tuple(width_of(weights_path, forms, site, base_config.hidden_size) for site in found)
    bases = bases_of(weights_path, forms, architecture, found, widths)
    empty = _skeleton(base_config, widths, bases, base_config.hidden_size, EPS, torch.float32)
    _check(weights_path, forms, empty, names)
    if (path := _slicing_json(Path(weights_path), slicing_json)) is not None:
        compare(read_slicing_json(path), widths, base_config, branches=len(architecture.branches))
    tensors = {ours: _finite(weights_path, theirs, state[theirs]) for ours, theirs in names.items()}
    said = next((getattr(base_config, field) for field in _EPS_FIELDS if hasattr(base_config, field)), None)
    if said is not None and said != EPS:
        notes.append(f"the base config's norms add {said:g}, SliceGPT's {EPS:g}: outputs differ at zero sparsity")
    if architecture.norm == "rmsnorm":
        notes.append("SliceGPT subtracts the mean of each embedding, which an RMSNorm does not absorb (spcl/QuaRot#7)")
    notes.append(f"{len(set(bases)) - 1} of {len(found) - 1} shortcuts are stored")
    notes += [f"{name} is an identity: the basis on both sides of it is one" for name in _identities(tensors)]
    return SlicedRead(
        widths=widths,
        site_bases=bases,
        norm_divisor=float(base_config.hidden_size),
        norm_eps=EPS,
        config_eps=None if said is None else float(said),
        dtype=reduce(torch.promote_types, (tensor.dtype for tensor in tensors.values())),
        tensors=MappingProxyType(tensors),
        notes=tuple(notes),
    )


def to_model(read: SlicedRead, base_config: PreTrainedConfig) -> PreTrainedModel:
    """Our sliced model with these tensors, in eval mode, computing what SliceGPT's model computes.

    Parameters
    ----------
    read
        From :func:`read_sliced`. All parameters get its `dtype`.
    base_config
        The same as there.

    Raises
    ------
    RotcheckError
        The tensors do not belong to a sliced model of `base_config`.
    """
    empty = _skeleton(base_config, read.widths, read.site_bases, read.norm_divisor, read.norm_eps, read.dtype)
    forms = {
        name: Form(file=Path(), dtype=value.dtype, shape=tuple(value.shape)) for name, value in read.tensors.items()
    }
    _check("to_model", forms, empty, {})
    # Without a path transformers looks for no file; it makes the buffers that a file does not hold.
    with quiet():
        model = type(empty).from_pretrained(None, config=empty.config, state_dict=dict(read.tensors), dtype=read.dtype)
    return model.eval()


def _skeleton(
    config: PreTrainedConfig,
    widths: tuple[int, ...],
    bases: tuple[int, ...],
    divisor: float,
    eps: float,
    dtype: torch.dtype,
) -> PreTrainedModel:
    count = len(widths)
    return skeleton(config, widths, bases, norm_divisor=[divisor] * count, norm_eps=[eps] * count, dtype=dtype)


def _check(
    path: str | os.PathLike[str], forms: Mapping[str, Form], empty: PreTrainedModel, names: Mapping[str, str]
) -> None:
    """That the tensors are those of the empty model; messages have the names of the file."""
    expected = {name: tuple(value.shape) for name, value in empty.state_dict().items()}
    if missing := sorted(set(expected) - set(forms)):
        raise RotcheckError(f"{path}: {len(missing)} tensors are missing, first {missing[0]}; {CURE}")
    if extra := sorted(set(forms) - set(expected)):
        config, name = empty.config, names.get(extra[0], extra[0])
        raise RotcheckError(
            f"{path}: {name[:80]!r} does not belong to a sliced {config.base_model_type} with "
            f"{config.num_hidden_layers} layers; {CURE}"
        )
    for ours, form in sorted(forms.items()):
        name, shape = names.get(ours, ours), expected[ours]
        if form.shape != shape:
            raise RotcheckError(
                f"{path}: {name} has shape {form.shape}, beside the other tensors it would be {shape}; {CURE}"
            )
        if form.dtype not in _FLOATS:
            raise RotcheckError(f"{path}: {name} is stored as {form.dtype}; {CURE}")


def _slicing_json(weights: Path, given: str | os.PathLike[str] | None) -> Path | None:
    if given is not None:
        return Path(given)
    beside = weights.with_suffix(".json")
    return beside if weights.suffix == ".pt" and beside.is_file() else None


def _finite(path: str | os.PathLike[str], name: str, tensor: Tensor) -> Tensor:
    if not tensor.isfinite().all():
        raise RotcheckError(f"{path}: {name} has NaN or infinite entries; slice the model again")
    return tensor


def _identities(tensors: Mapping[str, Tensor]) -> list[str]:
    return [
        name
        for name, value in tensors.items()
        if name.endswith("_shortcut") and torch.equal(value, torch.eye(*value.shape, dtype=value.dtype))
    ]
