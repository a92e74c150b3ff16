"""The small models hide nothing: every parameter and every feature of an architecture shows in the logits."""

from __future__ import annotations

import pytest
import torch

from rotcheck.errors import RotcheckError
from rotcheck.models import ARCHITECTURES, architecture_of, head_sites, hidden_sites
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.tiny import SMALL, adversarial_model
from rotcheck.subjects.running import cast, logit_error, logits

# A constant added to every key adds the same to all scores of a query, and softmax does not see it, unless RoPE turns
# keys by their positions: there is none in OPT.
UNSEEN = {"opt": ("k_proj.bias",)}
VISIBLE = 1e-3
FEATURES = [
    ("mistral", {"sliding_window": None}),
    ("qwen2", {"layer_types": ("full_attention", "sliding_attention")}),
    ("gemma2", {"layer_types": ("full_attention", "sliding_attention")}),
    ("gemma2", {"attn_logit_softcapping": None}),
    ("gemma2", {"final_logit_softcapping": None}),
    ("gemma2", {"query_pre_attn_scalar": 20}),
    ("gemma3_text", {"layer_types": ("full_attention", "sliding_attention")}),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    ("mixtral", {"num_experts_per_tok": 3}),
    ("qwen2_moe", {"norm_topk_prob": False}),
]


@pytest.fixture(scope="module", params=list(SMALL))
def case(request):
    model = cast(adversarial_model(request.param, seed=1, layers=2), torch.float64)
    batch = adversarial_batch(model, seed=2, batch=6, length=14)
    return request.param, model, batch, logits(model, [batch], what="the model")


def test_every_parameter_shows_in_the_logits(case):
    model_type, model, batch, expected = case
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        kept = parameter.data
        parameter.data = kept[torch.randperm(kept.shape[0], generator=generator)]
        changed = logit_error(logits(model, [batch], what="the changed"), expected)
        parameter.data = kept
        if name.endswith(UNSEEN.get(model_type, ())):
            assert changed <= 1e-12, name
        elif kept.shape[0] > 1:  # there is no other order of one row
            assert changed > VISIBLE, name


def test_gains_biases_and_means_of_embeddings_are_all_there(case):
    _, model, _, _ = case
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert 0.1 < parameter.std() < 0.6, name
    table = model.get_input_embeddings()
    means = table.weight.mean(dim=1) * getattr(table, "scalar_embed_scale", 1.0)
    assert means.abs().median() > 0.05
    assert means.std() > 0.05


def test_the_stream_and_what_is_added_to_it_are_of_one_size(case):
    _, model, batch, expected = case
    assert 0.4 < expected.std() < 10
    states = model(**batch, output_hidden_states=True).hidden_states
    mask = batch["attention_mask"].bool()
    first, second = states[0][mask], states[1][mask]
    assert 0.2 < (second - first).norm() / first.norm() < 5


def test_sizes_differ_pairwise(case):
    model_type, model, _, _ = case
    architecture, config = architecture_of(model), model.config
    head = head_sites(architecture, config)[0]
    sizes = [config.vocab_size, config.hidden_size, config.max_position_embeddings, head.width]
    sizes += {site.width for site in hidden_sites(architecture, config)}
    explicit = head.width * head.query_heads != config.hidden_size
    assert explicit is (model_type not in ("opt", "phi", "phi3", "qwen2", "qwen2_moe"))
    sizes += [head.width * head.query_heads] if explicit else []
    sizes += [head.width * head.heads] if head.group > 1 else []
    assert len(set(sizes)) == len(sizes)
    assert head.group > 1 or model_type == "opt"
    assert all(size & (size - 1) for size in (config.vocab_size, config.hidden_size))


@pytest.mark.parametrize(("model_type", "changes"), FEATURES)
def test_a_feature_shows_in_the_logits(model_type, changes):
    models = [cast(adversarial_model(model_type, seed=1, layers=2, **c), torch.float64) for c in ({}, changes)]
    batch = adversarial_batch(models[0], seed=2, batch=6, length=14)
    with_it, without = (logits(model, [batch], what="the model") for model in models)
    assert logit_error(without, with_it) > VISIBLE


@pytest.mark.parametrize("model_type", SMALL)
def test_eps_is_not_the_default_of_the_sliced_model(model_type):
    config = adversarial_model(model_type, seed=1, layers=1).config
    eps = getattr(config, "rms_norm_eps", None) or getattr(config, "layer_norm_eps", None)
    assert eps == 1e-6 or model_type == "opt"  # OPT's is that of torch, and no field of its configuration


def test_the_seed_decides_and_the_global_state_is_left_alone():
    before = torch.get_rng_state()
    first, again, other = (adversarial_model("qwen2_moe", seed=seed, layers=1).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_of_parameters_and_of_computed_buffers(dtype):
    model = adversarial_model("phi3", seed=0, layers=1, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert model.config.dtype == model.dtype == dtype
    assert {buffer.dtype for _, buffer in model.named_buffers()} == {torch.float32}
    assert not any(module.training for module in model.modules())


def test_a_type_that_transformers_does_not_have():
    with pytest.raises(RotcheckError, match=r"no model type 'lama'; use one of opt, llama, "):
        adversarial_model("lama", seed=0)


def test_a_type_that_is_not_declared():
    with pytest.raises(RotcheckError, match="'gpt2' is not declared"):
        adversarial_model("gpt2", seed=0)


def test_the_table_cannot_be_changed():
    assert set(SMALL) == set(ARCHITECTURES)
    with pytest.raises(TypeError):
        SMALL["opt"] = {}
