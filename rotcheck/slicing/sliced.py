"""The sliced model: a transformers model and configuration made from the stock ones."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from rotcheck.errors import RotcheckError
from rotcheck.models import ARCHITECTURES
from rotcheck.models.architecture import SLICED_PREFIX, Architecture, Site, architecture_of
from rotcheck.slicing.fields import check_fields
from rotcheck.slicing.layer import sliced_layer_class
from rotcheck.slicing.norm import GainFreeRMSNorm


class SlicedMixin:
    """What a sliced model adds to a stock one: narrowed modules, and loading that never invents a weight."""

    def __init__(self, config: PreTrainedConfig) -> None:
        found = check_fields(config)
        super().__init__(config)
        architecture = architecture_of(config)
        _insert_layers(self, architecture, type(self)._layer_class)
        for site in found:
            _narrow(self, architecture, site)
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


def _insert_layers(model: nn.Module, architecture: Architecture, layer_class: type[nn.Module]) -> None:
    layers = model.get_submodule(architecture.layers)
    for index in range(len(layers)):
        layers[index] = layer_class(model.config, layer_idx=index)


def _narrow(model: nn.Module, architecture: Architecture, site: Site) -> None:
    config = model.config
    width = config.site_widths[site.index]
    norm_bias = getattr(model.get_submodule(site.norm), "bias", None)
    for path in site.writers:
        module = model.get_submodule(path)
        if isinstance(module, nn.Embedding):
            module.embedding_dim = width
            module.weight = _zeros(module.weight, module.num_embeddings, width)
        else:
            module.out_features = width
            module.weight = _zeros(module.weight, width, module.in_features)
            if module.bias is not None:
                module.bias = _zeros(module.weight, width)
    for path in site.readers:
        module = model.get_submodule(path)
        module.in_features = width
        module.weight = _zeros(module.weight, module.out_features, width)
        if module.bias is None and norm_bias is not None:
            module.bias = _zeros(module.weight, module.out_features)
    norm = GainFreeRMSNorm(config.norm_divisor[site.index], config.norm_eps[site.index])
    model.set_submodule(site.norm, norm)
    if site.layer is None:
        return
    following = site.index + 1
    width_after = config.site_widths[following]
    layer = model.get_submodule(architecture.layers)[site.layer]
    layer.residual_widths = (*getattr(layer, "residual_widths", ()), width_after)
    branch = next(branch for branch in architecture.branches if branch.name == site.branch)
    like = model.get_submodule(site.readers[0]).weight
    same = config.site_bases[site.index] == config.site_bases[following]
    layer.register_parameter(branch.shortcut, None if same else _zeros(like, width, width_after))


def _zeros(like: Tensor, *shape: int) -> nn.Parameter:
    # Zeros, not empty: transformers does not initialise a module twice, and a model that was constructed
    # directly must not hold whatever was in memory.
    return nn.Parameter(torch.zeros(shape, dtype=like.dtype, device=like.device))


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
                "base_model_type": str,
                "tie_word_embeddings": bool,
            },
            "model_type": SLICED_PREFIX + architecture.model_type,
            "site_widths": None,
            "site_bases": None,
            "norm_divisor": None,
            "norm_eps": None,
            "base_model_type": architecture.model_type,
            "tie_word_embeddings": False,
        },
    )
    stock_layer = getattr(sys.modules[stock_model.__module__], architecture.layer_class)
    layer_class = sliced_layer_class(stock_layer, architecture)
    model_class = type(
        f"Sliced{stock_model.__name__}",
        (SlicedMixin, stock_model),
        {
            "__module__": __name__,
            "__doc__": f"``{stock_model.__name__}`` whose residual stream is rotated and sliced.",
            "config_class": config_class,
            "_layer_class": layer_class,
            # Named by string in transformers: with the stock name a device map may cut through a layer.
            "_no_split_modules": [layer_class.__name__],
        },
    )
    return config_class, model_class


CLASSES: Mapping[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = MappingProxyType(
    {name: _classes(architecture) for name, architecture in ARCHITECTURES.items()}
)


def register() -> None:
    """Make transformers' Auto classes know the sliced types; done when ``rotcheck.slicing`` is imported."""
    for config_class, model_class in CLASSES.values():
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        AutoModelForCausalLM.register(config_class, model_class, exist_ok=True)


def is_sliced(model_or_config: Any) -> bool:
    """Whether this is a sliced model, or its configuration."""
    config = getattr(model_or_config, "config", model_or_config)
    return str(getattr(config, "model_type", "")).startswith(SLICED_PREFIX)


def skeleton(
    config: PreTrainedConfig,
    widths: Sequence[int],
    site_bases: Sequence[int],
    *,
    norm_divisor: Sequence[float] | None = None,
    norm_eps: Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """Sliced model on the meta device, in eval mode: every shape, no memory.

    Parameters
    ----------
    config
        Of the stock model; it is not changed.
    widths, site_bases
        Width and basis index of each site.
    norm_divisor, norm_eps
        Per site; the hidden size and 1e-5 by default.
    dtype
        Of the parameters; float32 by default.

    Raises
    ------
    RotcheckError
        See :func:`check_fields`.
    """
    config_class, model_class = CLASSES[architecture_of(config).model_type]
    n_sites = len(widths)
    fields = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "architectures")}
    fields["tie_word_embeddings"] = False
    sliced_config = config_class.from_dict(
        {
            **fields,
            "site_widths": list(widths),
            "site_bases": list(site_bases),
            "norm_divisor": list(norm_divisor or [config.hidden_size] * n_sites),
            "norm_eps": list(norm_eps or [1e-5] * n_sites),
        }
    )
    sliced_config._attn_implementation = config._attn_implementation
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
