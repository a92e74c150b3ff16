"""A cache is handed to a model under the name that its release uses, and is found in its answer."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast

from rotcheck.models.adversarial import adversarial_opt
from rotcheck.models.caching import NAMES, cache_name, cache_of, with_cache

SIZES = {"vocab_size": 31, "num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40}
RELEASE = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"


class Newest(nn.Module):
    def forward(self, ids, cache=None, past_key_values=None):
        """Both, as in the releases between the two."""


class Older(nn.Module):
    def forward(self, ids, past_key_values=None):
        """Only the older name."""


class HandsOn(Older):
    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs)


class Wrapper(nn.Module):
    def forward(self, *args, **kwargs):
        """Names nothing, and neither does a base."""


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (Newest(), "cache"),
        (Older(), "past_key_values"),
        (HandsOn(), "past_key_values"),
        (Wrapper(), RELEASE),
        (nn.Identity(), RELEASE),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_name_is_read_from_the_signature(module, name):
    assert cache_name(module) == name
    cache = object()
    assert with_cache(module, cache) == {name: cache}


@pytest.mark.parametrize("family", ["opt", "llama", "gpt_neox"])
def test_stock_models_and_their_layers_take_the_name_of_the_release(family):
    if family == "opt":
        model = adversarial_opt(seed=0, layers=2)
    else:
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SIZES)).eval()
    layers = [module for name, module in model.named_modules() if name.endswith(("layers.0", "self_attn", "attention"))]
    assert len(layers) > 1
    for module in (model, model.base_model, *layers):
        assert cache_name(module) == RELEASE


@pytest.mark.parametrize("whole", [True, False], ids=["with head", "base"])
def test_the_model_fills_it_without_a_warning(whole):
    model = adversarial_opt(seed=0, layers=2)
    model = model if whole else model.base_model
    cache, ids = DynamicCache(), torch.randint(3, 90, (2, 5), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        answer = model(input_ids=ids, use_cache=True, **with_cache(model, cache))
    assert cache_of(answer) is cache
    assert cache.get_seq_length() == 5


def test_generate_takes_it_under_the_same_name():
    model = adversarial_opt(seed=0, layers=2)
    cache, ids = DynamicCache(), torch.randint(3, 90, (2, 5), generator=torch.Generator().manual_seed(0))
    model.generate(ids, max_new_tokens=3, do_sample=False, eos_token_id=None, **with_cache(model, cache))
    assert cache.get_seq_length() == 7  # the last token is not run


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_is_read_under_either_name(name):
    cache = object()
    assert cache_of(SimpleNamespace(**{name: cache})) is cache
    assert cache_of(SimpleNamespace(**dict.fromkeys(NAMES) | {name: cache})) is cache


@pytest.mark.parametrize("answer", [SimpleNamespace(), SimpleNamespace(cache=None, past_key_values=None)])
def test_an_answer_without_a_cache_has_none(answer):
    assert cache_of(answer) is None
