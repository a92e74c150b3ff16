"""A float64 copy of a model that really computes in float64.

transformers' RMSNorms compute in float32 whatever the dtype of the model, its eager attention takes the softmax there,
and grouped experts refuse float64. A right rotation then measures 1e-7, which hides what is wrong by less. In the copy
these modules are replaced; the model itself is left alone.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from rotcheck.errors import RotcheckError
from rotcheck.models.declared import architecture_of
from rotcheck.models.patched import patched

ATTENTION = "rotcheck_exact"
"""Name of :func:`exact_attention` in transformers' table of attention functions."""


class ExactRMSNorm(nn.Module):
    """``x / sqrt(mean(x^2) + eps) * g`` in ``promote_types(x.dtype, float32)``, returned in ``x.dtype``.

    Parameters
    ----------
    weight
        g (d,), with any offset added.
    eps
        That of the norm it replaces.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over the last dimension."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return (wide * scale * self.weight.to(wide.dtype)).to(x.dtype)


def needs_exact(model: nn.Module) -> bool:
    """Whether a float64 copy of the model has modules that compute in float32."""
    implementation = getattr(model.config, "_attn_implementation", "")
    return implementation == "eager" or any(_is_rms_norm(module) for module in model.modules())


def exact(model: nn.Module) -> Any:
    """Copy in float64 whose norms, attention and experts compute in float64.

    RMSNorms of declared architectures are replaced; those of others stay as they are, because nothing says whether
    their gain is stored as ``1 + w``. Buffers that are computed and not stored (RoPE's frequencies) keep their dtype.
    """
    copied = cast_copy(model, torch.float64)
    try:
        offset = architecture_of(model).gain_offset
    except RotcheckError:
        offset = None
    if offset is not None:
        for name, module in list(copied.named_modules()):
            if _is_rms_norm(module):
                norm = ExactRMSNorm(module.weight + offset, rms_eps(module)).train(module.training)
                copied.set_submodule(name, norm)
    if getattr(copied.config, "_attn_implementation", "") == "eager":
        copied.set_attn_implementation("sdpa" if getattr(copied, "_supports_sdpa", False) else ATTENTION)
    if getattr(copied.config, "_experts_implementation", None) is not None:
        copied.config._experts_implementation = "eager"
    return copied


def cast_copy(model: nn.Module, dtype: torch.dtype) -> Any:
    """Copy of a model in another dtype whose computed buffers are left as they are.

    ``model.to(bfloat16)`` rounds RoPE's frequencies, which ``from_pretrained(dtype=bfloat16)`` does not.

    Raises
    ------
    RotcheckError
        For a model with a forward or a hook that would go on computing with the original: see
        :func:`rotcheck.models.patched.patched`.
    """
    if reason := patched(model):
        raise RotcheckError(f"{type(model).__name__} cannot be copied: {reason}")
    copied = copy.deepcopy(model).to(dtype)
    stored = set(model.state_dict())
    for name, buffer in model.named_buffers():
        if name not in stored and buffer.is_floating_point():
            parent, _, leaf = name.rpartition(".")
            setattr(copied.get_submodule(parent), leaf, buffer.detach().clone())
    return copied


def rms_eps(norm: nn.Module) -> float:
    """eps of a norm, under either of its names."""
    return float(norm.eps if hasattr(norm, "eps") else norm.variance_epsilon)


def exact_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **ignored: Any,
) -> tuple[Tensor, Tensor]:
    """Attention as transformers' eager one, with the softmax in the dtype of the queries.

    A row that is masked altogether would be -inf everywhere after adding the mask in float64, and give NaN; it is
    clamped, and gives equal weights. Shapes as in transformers: (B, heads, T, width) in, (B, T, heads, width) out.
    """
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if attention_mask is not None:
        scores = (scores + attention_mask).clamp_min(torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def _is_rms_norm(module: nn.Module) -> bool:
    known = hasattr(module, "eps") or hasattr(module, "variance_epsilon")
    weight = getattr(module, "weight", None)
    stock = type(module).__module__.startswith("transformers.")
    return stock and type(module).__name__.endswith("RMSNorm") and known and isinstance(weight, Tensor)


AttentionInterface.register(ATTENTION, exact_attention)
AttentionMaskInterface.register(ATTENTION, eager_mask)
