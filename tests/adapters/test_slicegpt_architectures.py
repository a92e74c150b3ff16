"""The architectures that SliceGPT knows: two branches or a parallel block, split or fused projections, both norms."""

from __future__ import annotations

import json

import pytest
import torch

from rotcheck.adapters import read_sliced, to_model
from rotcheck.adapters.slicegpt_layout import SHORTCUTS
from rotcheck.models import ARCHITECTURES
from rotcheck.models.tiny import adversarial_model
from rotcheck.slicing import Schedule, random_plan, rotate_and_slice

# SliceGPT's norm adds 1e-5, and it would replace the norms of Phi's heads too: phi-2 has none.
MODELS = {
    "opt": {},
    "llama": {"rms_norm_eps": 1e-5},
    "phi": {"layer_norm_eps": 1e-5, "qk_layernorm": False},
    "phi3": {"rms_norm_eps": 1e-5},
}
LAYERS = 2


@pytest.fixture(scope="module", params=list(MODELS))
def written(request, tmp_path_factory, their_names):
    """The stock model's config, our sliced model, and SliceGPT's files for it."""
    name = request.param
    stock = adversarial_model(name, seed=421, layers=LAYERS, **MODELS[name])
    parallel = len(ARCHITECTURES[name].branches) == 1
    widths = (30, 41, 48) if parallel else (30, 41, 35, 44, 48)
    plan = random_plan(
        48, LAYERS, "per-layer", Schedule.explicit(widths), seed=422, branches=len(ARCHITECTURES[name].branches)
    )
    sliced = rotate_and_slice(stock, plan)
    path = tmp_path_factory.mktemp(name) / f"{name}_0.2.pt"
    torch.save(their_names(sliced), path)
    step = 1 if parallel else 2
    fields = {
        "hidden_size": 48,
        "layers_num": LAYERS,
        "do_slice_head": False,
        "parallel_blocks": parallel,
        "embedding_dimensions": {"0": 30},
        "attention_input_dimensions": dict(enumerate(widths[:-1:step])),
        "attention_output_dimensions": {} if parallel else dict(enumerate(widths[1::2])),
        "mlp_input_dimensions": {} if parallel else dict(enumerate(widths[1::2])),
        "mlp_output_dimensions": dict(enumerate(widths[step::step])),
        "head_dimension": 48,
        "const_dimension": None,
    }
    path.with_suffix(".json").write_text(json.dumps(fields))
    return stock.config, sliced, path


@pytest.fixture
def ids():
    return torch.tensor([[3, 70, 12, 96, 41, 5], [8, 2, 55, 23, 90, 17]])


def test_logits_are_those_of_the_sliced_model(written, ids):
    config, sliced, path = written
    again = to_model(read_sliced(path, config), config)
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, sliced(input_ids=ids).logits)


def test_widths_and_bases_are_those_of_our_sites(written):
    config, sliced, path = written
    read = read_sliced(path, config)
    assert list(read.widths) == sliced.config.site_widths
    assert list(read.site_bases) == list(range(len(read.widths)))


def test_one_of_their_names_for_each_branch(written):
    config, _, path = written
    stored = {name.rpartition(".")[2] for name in torch.load(path, weights_only=True)} & set(SHORTCUTS)
    assert stored == set(SHORTCUTS[: len(ARCHITECTURES[config.model_type].branches)])


def test_eps_is_slicegpts_whatever_the_model_says(written, ids):
    """A model that was sliced with another eps than its own computes what SliceGPT computes, and that is noted."""
    config, sliced, path = written
    field = next((name for name in ("rms_norm_eps", "layer_norm_eps") if hasattr(config, name)), None)
    if field is None:
        assert read_sliced(path, config).config_eps is None
        return
    other = type(config)(**{**config.to_dict(), field: 1e-6})
    read = read_sliced(path, other)
    assert (read.norm_eps, read.config_eps) == (1e-5, 1e-6)
    assert "the base config's norms add 1e-06, SliceGPT's 1e-05: outputs differ at zero sparsity" in read.notes
    with torch.no_grad():
        assert torch.equal(to_model(read, other)(input_ids=ids).logits, sliced(input_ids=ids).logits)
    assert not any("outputs differ" in note for note in read_sliced(path, config).notes)


def test_centred_embeddings_are_noted_where_the_norm_does_not_absorb_them(written):
    config, _, path = written
    noted = any("subtracts the mean of each embedding" in note for note in read_sliced(path, config).notes)
    assert noted == (ARCHITECTURES[config.model_type].norm == "rmsnorm")


def test_the_second_shortcut_of_a_parallel_block_is_refused(written, refused, tmp_path):
    config, _, path = written
    tensors = torch.load(path, weights_only=True)
    layer = f"{ARCHITECTURES[config.model_type].layers}.0."
    tensors[f"{layer}mlp_shortcut_Q"] = tensors[f"{layer}attn_shortcut_Q"]
    torch.save(tensors, tmp_path / "w.pt")
    says = "has one branch" if len(ARCHITECTURES[config.model_type].branches) == 1 else "mlp_shortcut_Q has shape"
    refused(lambda: read_sliced(tmp_path / "w.pt", config), f"{layer}mlp_shortcut_Q", says)


def test_frequencies_of_old_transformers_are_not_read(written, tmp_path):
    config, _, path = written
    tensors = torch.load(path, weights_only=True)
    name = f"{ARCHITECTURES[config.model_type].layers}.0.self_attn.rotary_emb.inv_freq"
    torch.save({**tensors, name: torch.ones(4)}, tmp_path / "w.pt")
    read = read_sliced(tmp_path / "w.pt", config)
    assert set(read.tensors) == set(read_sliced(path, config).tensors)
    assert any(f"{name} is not read" in note for note in read.notes)


@pytest.mark.parametrize("field", ["attention_input_dimensions", "mlp_output_dimensions"])
def test_the_json_file_is_compared(written, refused, tmp_path, field):
    config, _, path = written
    fields = json.loads(path.with_suffix(".json").read_text())
    fields[field]["1"] += 1
    (tmp_path / "other.json").write_text(json.dumps(fields))
    refused(lambda: read_sliced(path, config, tmp_path / "other.json"), f"{field}[1] is {fields[field]['1']}")


def test_declarations_have_no_more_branches_than_slicegpt_has_names():
    assert max(len(value.branches) for value in ARCHITECTURES.values()) <= len(SHORTCUTS)
