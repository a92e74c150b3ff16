"""The sliced model: a transformers model and configuration made from the stock ones."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from rotcheck.errors import RotcheckError
from rotcheck.models.architecture import Architecture
from rotcheck.models.declared import ARCHITECTURES, SLICED_PREFIX, architecture_of, declarations
from rotcheck.slicing.fields import check_fields, online_hidden, online_queries
from rotcheck.slicing.layer import sliced_layer_class
from rotcheck.slicing.narrow import insert_layers, narrow, rotate_hidden, widen_layers
from rotcheck.slicing.online import with_rotated_attention


class SlicedMixin:
    """What a sliced model adds to a stock one: narrowed modules, and loading that never invents a weight."""

    def __init__(self, config: PreTrainedConfig) -> None:
        found = check_fields(config)
        queries, hidden = online_queries(config), online_hidden(config)
        super().__init__(config)
        architecture = architecture_of(config)
        if found:
            insert_layers(self, architecture, type(self)._layer_class)
        widen_layers(self, architecture)
        for site in queries:  # made anew from the configuration, so before anything is narrowed
            attention = self.get_submodule(site.module)
            self.set_submodule(site.module, with_rotated_attention(attention, site, config))
        for site in found:
            narrow(self, architecture, site)
        for site, sizes in hidden:
            rotate_hidden(self, architecture, site, sizes)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as transformers does, but raise where it would re-initialise or ignore a tensor.

        Raises
        ------
        RotcheckError
            Missing, unexpected or mis-shaped tensors, or a damaged safetensors file.
        """
        wanted = kwargs.pop("output_loading_info", False)
        kwargs["ignore_mismatched_sizes"] = True
        try:
            model, info = super().from_pretrained(
                pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
            )
        except SafetensorError as error:
            raise RotcheckError(
                f"{pretrained_model_name_or_path}: damaged safetensors file ({error}); save the model again"
            ) from error
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if keys := sorted(map(str, info.get(kind) or ())):
                raise RotcheckError(
                    f"{pretrained_model_name_or_path}: {len(keys)} {kind.replace('_', ' ')}, first {keys[0]}; "
                    "the weights do not belong to this config, save the model again"
                )
        for parameter in model.parameters():
            # A mapped file is not aligned as fresh memory is, and matrix products may then round otherwise.
            parameter.data = parameter.data.clone()
        return (model, info) if wanted else model


@cache
def classes(model_type: str) -> tuple[type[PreTrainedConfig], type[PreTrainedModel]]:
    """Configuration and model class of the sliced models of a declared type, made once and registered.

    Raises
    ------
    RotcheckError
        The type is not declared, transformers has no causal language model for it, or that has no such layers.
    """
    architecture = declarations().get(model_type)
    if architecture is None:
        raise RotcheckError(f"model type {model_type!r} is not declared; declared: {', '.join(sorted(declarations()))}")
    if model_type not in CONFIG_MAPPING or CONFIG_MAPPING[model_type] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise RotcheckError(
            f"transformers has no causal language model of type {model_type!r}: register its configuration and its "
            "model with AutoConfig and AutoModelForCausalLM first"
        )
    config_class, model_class = _classes(architecture)
    AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    AutoModelForCausalLM.register(config_class, model_class, exist_ok=True)
    return config_class, model_class


def _classes(architecture: Architecture) -> tuple[type[PreTrainedConfig], type[PreTrainedModel]]:
    stock_config = CONFIG_MAPPING[architecture.model_type]
    stock_model = MODEL_FOR_CAUSAL_LM_MAPPING[stock_config]
    config_class = type(
        f"Sliced{stock_config.__name__}",
        (stock_config,),
        {
            "__module__": __name__,
            "__doc__": f"``{stock_config.__name__}`` with one width, basis index, divisor and eps per site.",
            "__annotations__": {
                "site_widths": list | None,
                "site_bases": list | None,
                "norm_divisor": list | None,
                "norm_eps": list | None,
                "online_queries": bool,
                "online_hidden": list | None,
                "base_model_type": str,
                "tie_word_embeddings": bool,
            },
            "model_type": SLICED_PREFIX + architecture.model_type,
            "site_widths": None,
            "site_bases": None,
            "norm_divisor": None,
            "norm_eps": None,
            "online_queries": False,
            "online_hidden": None,
            "base_model_type": architecture.model_type,
            "tie_word_embeddings": False,
        },
    )
    stock_layer = getattr(sys.modules[stock_model.__module__], architecture.layer_class, None)
    if stock_layer is None:
        raise RotcheckError(
            f"{stock_model.__module__} has no {architecture.layer_class}, which the declaration of "
            f"{architecture.model_type} names; correct layer_class"
        )
    layer_class = sliced_layer_class(stock_layer, architecture)
    model_class = type(
        f"Sliced{stock_model.__name__}",
        (SlicedMixin, stock_model),
        {
            "__module__": __name__,
            "__doc__": f"``{stock_model.__name__}`` whose residual stream is rotated and sliced.",
            "config_class": config_class,
            "_layer_class": layer_class,
            # Named by string in transformers: with the stock name alone a device map may cut through a layer.
            "_no_split_modules": [layer_class.__name__, stock_layer.__name__],
        },
    )
    return config_class, model_class


def register() -> None:
    """Make transformers' Auto classes know the sliced types; done when ``rotcheck.slicing`` is imported."""
    for model_type in ARCHITECTURES:
        classes(model_type)


def is_sliced(model_or_config: Any) -> bool:
    """Whether this is a sliced model, or its configuration."""
    config = getattr(model_or_config, "config", model_or_config)
    return str(getattr(config, "model_type", "")).startswith(SLICED_PREFIX)


def skeleton(
    config: PreTrainedConfig,
    widths: Sequence[int] | None,
    site_bases: Sequence[int] | None,
    *,
    norm_divisor: Sequence[float] | None = None,
    norm_eps: Sequence[float] | None = None,
    online_queries: bool = False,
    online_hidden: Sequence[Sequence[int]] | None = None,
    dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """Sliced model on the meta device, in eval mode: every shape, no memory.

    Parameters
    ----------
    config
        Of the stock model; it is not changed.
    widths, site_bases
        Width and basis index of each site; ``None`` for a stream that is left alone.
    norm_divisor, norm_eps
        Per site; the hidden size and 1e-5 by default.
    online_queries, online_hidden
        Whether queries and keys are rotated while the model runs, and the sizes of the factors of each hidden site.
    dtype
        Of the parameters; float32 by default.

    Raises
    ------
    RotcheckError
        See :func:`check_fields`, :func:`online_queries` and :func:`online_hidden`.
    """
    config_class, model_class = classes(architecture_of(config).model_type)
    fields = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "architectures")}
    if widths is not None:
        fields |= {
            "tie_word_embeddings": False,
            "site_widths": list(widths),
            "site_bases": list(site_bases or ()),
            "norm_divisor": list(norm_divisor or [config.hidden_size] * len(widths)),
            "norm_eps": list(norm_eps or [1e-5] * len(widths)),
        }
    else:
        fields["tie_word_embeddings"] = config.tie_word_embeddings
    fields["online_queries"] = online_queries
    fields["online_hidden"] = None if online_hidden is None else [list(sizes) for sizes in online_hidden]
    sliced_config = config_class.from_dict(fields)
    sliced_config._attn_implementation = config._attn_implementation
    if getattr(config, "_experts_implementation", None) is not None:
        sliced_config._experts_implementation = config._experts_implementation
    if dtype is not None:
        sliced_config.dtype = dtype
    with torch.device("meta"):
        model = model_class(sliced_config)
    return model.to(dtype or torch.float32).eval()


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Size of a model, and of its shortcuts.

    Returns
    -------
    dict
        ``total``: parameters, tied ones once. ``shortcuts``: number of shortcut matrices.
        ``shortcut_bytes_fp16``: what they occupy at two bytes a parameter.
    """
    stored = [p.numel() for name, p in model.named_parameters() if name.endswith("_shortcut")]
    total = sum(parameter.numel() for parameter in model.parameters())
    return {"total": total, "shortcuts": len(stored), "shortcut_bytes_fp16": 2 * sum(stored)}
