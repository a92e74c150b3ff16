"""The declared paths in the sizes of published models, on the meta device: no weights, no memory.

Parameter counts are those that the model hub shows for the checkpoints.
"""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from rotcheck.errors import RotcheckError
from rotcheck.models import architecture_of, head_sites, hidden_sites, sites
from rotcheck.models.shapes import OPT_SIZES, opt_shape
from rotcheck.models.tensors import linear
from rotcheck.slicing import parameter_counts, skeleton


def shape(vocabulary, hidden, inner, layers, heads, key_heads=None, **more):
    return {
        "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": key_heads or heads, **more,
    }  # fmt: skip


QWEN_MOE = {"moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632, "num_experts": 60}
TIED = {"tie_word_embeddings": True}
# Model type, configuration, parameters, width of a head.
PUBLISHED = {
    "llama-2-7b": ("llama", shape(32000, 4096, 11008, 32, 32), 6_738_415_616, 128),
    "llama-3-8b": ("llama", shape(128256, 4096, 14336, 32, 32, 8), 8_030_261_248, 128),
    "mistral-7b": ("mistral", shape(32000, 4096, 14336, 32, 32, 8), 7_241_732_096, 128),
    "phi-2": ("phi", shape(51200, 2560, 10240, 32, 32), 2_779_683_840, 80),
    "phi-3-mini": ("phi3", shape(32064, 3072, 8192, 32, 32), 3_821_079_552, 96),
    "qwen2-0.5b": ("qwen2", shape(151936, 896, 4864, 24, 14, 2, **TIED), 494_032_768, 64),
    "qwen2-7b": ("qwen2", shape(152064, 3584, 18944, 28, 28, 4), 7_615_616_512, 128),
    "qwen3-0.6b": ("qwen3", shape(151936, 1024, 3072, 28, 16, 8, head_dim=128, **TIED), 596_049_920, 128),
    "qwen3-8b": ("qwen3", shape(151936, 4096, 12288, 36, 32, 8, head_dim=128), 8_190_735_360, 128),
    "gemma-2b": ("gemma", shape(256000, 2048, 16384, 18, 8, 1, head_dim=256, **TIED), 2_506_172_416, 256),
    "gemma-7b": ("gemma", shape(256000, 3072, 24576, 28, 16, head_dim=256, **TIED), 8_537_680_896, 256),
    "gemma-2-2b": ("gemma2", shape(256000, 2304, 9216, 26, 8, 4, head_dim=256, **TIED), 2_614_341_888, 256),
    "gemma-3-1b": ("gemma3_text", shape(262144, 1152, 6912, 26, 4, 1, head_dim=256, **TIED), 999_885_952, 256),
    "mixtral-8x7b": ("mixtral", shape(32000, 4096, 14336, 32, 32, 8), 46_702_792_704, 128),
    "qwen1.5-moe-a2.7b": ("qwen2_moe", shape(151936, 2048, 5632, 24, 16, **QWEN_MOE), 14_315_784_192, 128),
}
POST_NORM = ("gemma-2-2b", "gemma-3-1b")


def opt_config(name):
    sizes = opt_shape(name)
    return CONFIG_MAPPING["opt"](
        hidden_size=sizes["hidden_size"], num_hidden_layers=sizes["layers"], num_attention_heads=sizes["heads"],
        ffn_dim=sizes["ffn_dim"], vocab_size=sizes["vocab_size"], max_position_embeddings=sizes["max_positions"],
        word_embed_proj_dim=sizes["hidden_size"],
    )  # fmt: skip


def meta(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def check_sites(model, width):
    """Every declared path is there, and its weight has the sizes that the sites say."""
    architecture, config = architecture_of(model), model.config
    d = config.hidden_size
    found = [] if architecture.refuse(config) else sites(architecture, config)
    for site in found:
        assert model.get_submodule(site.norm).weight.shape == (d,)
        for path in site.readers:
            assert linear(model, path).weight.shape[-1] == d, path
        for path in site.writers:
            held = linear(model, path)
            assert held.weight.shape[-1 if held.embedding else -2] == d, path
    for site in head_sites(architecture, config):
        assert site.width == width
        rows = {which: site.rows(which) for which in ("query", "key", "value")}
        assert rows["query"].stop - rows["query"].start == config.num_attention_heads * width
        assert rows["value"].stop - rows["value"].start == site.heads * width
        for which, path in (("query", site.query), ("key", site.key), ("value", site.value)):
            outputs = linear(model, path).weight.shape[0]
            assert rows[which].stop == outputs if path != site.value or which == "value" else rows[which].stop < outputs
        assert linear(model, site.output).weight.shape == (d, config.num_attention_heads * width)
        assert model.get_submodule(site.module).head_dim == width
    for site in hidden_sites(architecture, config):
        assert linear(model, site.writer).weight.shape[-2:] == (d, site.width)


def rotated_count(model):
    """Parameters of a model that is rotated by one basis, from those of the original.

    Its head is untied (another V d, if it was tied); the gain and bias of the norm at each site are gone, d each; and a
    reader without a bias gets one, of its number of outputs, where the norm had a bias to fold into it.
    """
    architecture, config = architecture_of(model), model.config
    count = parameter_counts(model)["total"]
    if config.tie_word_embeddings:
        count += linear(model, architecture.head).weight.numel()
    for site in sites(architecture, config):
        norm = model.get_submodule(site.norm)
        count -= sum(parameter.numel() for parameter in norm.parameters())
        readers = [linear(model, path) for path in site.readers]
        if getattr(norm, "bias", None) is not None:
            count += sum(held.weight.shape[0] for held in readers if held.bias is None)
    return count


@pytest.mark.parametrize("name", PUBLISHED)
def test_of_the_models_in_their_full_depth(name):
    model_type, fields, parameters, width = PUBLISHED[name]
    model = meta(CONFIG_MAPPING[model_type](**fields))
    assert parameter_counts(model)["total"] == parameters
    check_sites(model, width)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name not in POST_NORM])
def test_parameters_after_a_rotation(name):
    # Two layers, because the count is linear in them.
    model_type, fields, _, _ = PUBLISHED[name]
    config = CONFIG_MAPPING[model_type](**{**fields, "num_hidden_layers": 2})
    model = meta(config)
    count = len(sites(architecture_of(model), config))
    rotated = skeleton(config, [config.hidden_size] * count, [0] * count)
    assert parameter_counts(rotated) == {"total": rotated_count(model), "shortcuts": 0, "shortcut_bytes_fp16": 0}


@pytest.mark.parametrize("name", OPT_SIZES)
def test_of_opt(name):
    config = opt_config(name)
    model, d, layers = meta(config), config.hidden_size, config.num_hidden_layers
    # Embeddings of tokens and positions (two rows more than positions), twelve square matrices a layer with nine biases
    # of d and two norms, and the last norm.
    table, positions = config.vocab_size * d, (2048 + 2) * d
    parameters = table + positions + layers * (12 * d**2 + 13 * d) + 2 * d
    assert parameter_counts(model)["total"] == parameters
    check_sites(model, d // config.num_attention_heads)
    # Rotated: the head is untied and gets a bias, and no norm has a gain or a bias. Two layers, as above.
    expected = parameters + table + config.vocab_size - (2 * layers + 1) * 2 * d
    assert rotated_count(model) == expected
    config.num_hidden_layers = 2
    rotated = skeleton(config, [d] * 5, [0] * 5)
    assert parameter_counts(rotated)["total"] == expected - (layers - 2) * (12 * d**2 + 9 * d)


def test_opt_in_the_sizes_of_its_paper():
    # arXiv:2205.01068, table 1, without the 350M model, whose norms come after the addition.
    assert {name: sizes[:2] for name, sizes in OPT_SIZES.items()} == {
        "125m": (768, 12), "1.3b": (2048, 24), "2.7b": (2560, 32), "6.7b": (4096, 32), "13b": (5120, 40),
        "30b": (7168, 48), "66b": (9216, 64),
    }  # fmt: skip
    assert [sizes[2] for sizes in OPT_SIZES.values()] == [12, 32, 32, 32, 40, 56, 72]


def test_a_size_that_opt_does_not_have():
    with pytest.raises(RotcheckError, match=r"no size '350m' here: use one of 125m, 1\.3b, .*, 66b"):
        opt_shape("350m")


def test_the_table_of_sizes_cannot_be_changed():
    with pytest.raises(TypeError):
        OPT_SIZES["1b"] = (1, 1, 1)
