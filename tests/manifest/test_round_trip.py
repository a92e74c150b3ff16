"""A rotated model and its manifest come back bit for bit, of every architecture, with and without its stream."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.tiny import SMALL
from rotcheck.slicing import load, read_manifest, save, verify_manifest

FILES = ["bases.json", "bases.safetensors", "config.json", "generation_config.json", "model.safetensors"]


def contents(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def same(made, again):
    before, after = made.model.state_dict(), again.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    again.config._experts_implementation = getattr(made.model.config, "_experts_implementation", None)
    batch = adversarial_batch(made.original, seed=5, padded=False)
    with torch.no_grad():
        assert torch.equal(made.model(**batch).logits, again(**batch).logits)


@pytest.mark.parametrize("grouping", ["per-layer", ""], ids=["stream", "stream left alone"])
@pytest.mark.parametrize("model_type", SMALL)
def test_every_architecture(model_type, grouping, rotated, tmp_path):
    """Tied models too: a stream that is left alone keeps its tied head, which is stored once."""
    made = rotated(model_type, grouping=grouping, tied=True)
    save(made.model, tmp_path / "model", plan=made.plan, inner=made.inner)
    assert sorted(contents(tmp_path / "model")) == FILES
    assert verify_manifest(tmp_path / "model") == ()
    again = load(tmp_path / "model")
    same(made, again)
    assert again.config.tie_word_embeddings is (made.plan is None)
    assert set(read_manifest(tmp_path / "model").facts.tensors) == set(made.model.state_dict()) - (
        {"lm_head.weight"} if made.plan is None else set()
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("model_type", ["opt", "mixtral", "gemma2"])
def test_every_dtype(model_type, dtype, rotated, tmp_path):
    made = rotated(model_type, dtype=dtype)
    save(made.model, tmp_path / "model", plan=made.plan, inner=made.inner)
    again = load(tmp_path / "model")
    assert {buffer.dtype for name, buffer in again.named_buffers() if ".rotation." in name} == {dtype}
    same(made, again)
    assert verify_manifest(tmp_path / "model") == ()


def test_experts_run_in_float64_as_loaded(rotated, tmp_path):
    """transformers' default, grouped matrix products, refuses float64."""
    made = rotated("mixtral", grouping="", rotations=("R2",), dtype=torch.float64)
    save(made.model, tmp_path / "model", inner=made.inner)
    batch = adversarial_batch(made.original, seed=5, padded=False)
    with torch.no_grad():
        assert load(tmp_path / "model")(**batch).logits.isfinite().all()


def test_transformers_own_loader(rotated, tmp_path):
    made = rotated("qwen3")
    save(made.model, tmp_path / "model", plan=made.plan, inner=made.inner)
    same(made, AutoModelForCausalLM.from_pretrained(tmp_path / "model"))


def test_saving_twice_gives_the_same_bytes(rotated, tmp_path):
    made = rotated("phi")
    save(made.model, tmp_path / "one", plan=made.plan, inner=made.inner)
    save(load(tmp_path / "one"), tmp_path / "two", plan=made.plan, inner=made.inner)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_without_plans_there_is_no_manifest(rotated, tmp_path):
    save(rotated().model, tmp_path / "model")
    assert read_manifest(tmp_path / "model") is None
    assert not (tmp_path / "model" / "bases.json").exists()


def test_private_bases_stay_out(rotated, tmp_path):
    made = rotated()
    save(made.model, tmp_path / "model", plan=made.plan, inner=made.inner, private=True)
    save(made.model, tmp_path / "open", plan=made.plan, inner=made.inner)
    assert not (tmp_path / "model" / "bases.safetensors").exists()
    private, whole = read_manifest(tmp_path / "model"), read_manifest(tmp_path / "open")
    assert private.private
    assert not private.tensors
    assert private.facts.bases == whole.facts.bases
    assert private.facts.tensors == whole.facts.tensors
    assert verify_manifest(tmp_path / "model") == ()


def test_bases_come_back_as_they_were(saved, rotated):
    made, manifest = rotated(), read_manifest(saved)
    by_id = {basis.id: manifest.factored(basis) for basis in manifest.facts.bases}
    for index, basis in enumerate(made.plan.bases):
        assert torch.equal(by_id[f"R1.{index}"].matrix(), basis)
    for layer in range(2):
        for head in range(2):
            assert torch.equal(by_id[f"R2.{layer}.{head}"].matrix(), made.inner.values[layer][head])
            assert torch.equal(by_id[f"R3.{layer}.{head}"].matrix(), made.inner.queries[layer][head])
        assert torch.equal(by_id[f"R4.{layer}"].matrix(), made.inner.hidden[layer].matrix())


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"plan": None}, "and no plan was given; pass plan="),
        ({"inner": None}, "the model has R3 True, the inner plan False; pass inner="),
        ({"grouping": "global"}, "has other ones; pass plan="),
        ({"rotations": ("R2", "R3")}, "the model has R4 of factors [[112], [112]], the inner plan None"),
        ({"rotations": ("R2", "R4")}, "the model has R3 True, the inner plan False"),
    ],
)
def test_plans_of_another_model_are_refused(changed, says, rotated, one_line, tmp_path):
    made = rotated()
    other = rotated(**{name: value for name, value in changed.items() if value is not None})
    plans = {"plan": other.plan, "inner": other.inner, **{name: None for name, v in changed.items() if v is None}}
    one_line(lambda: save(made.model, tmp_path / "model", **plans), "save: ", says)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_for_a_stream_that_was_left_alone_is_refused(rotated, one_line, tmp_path):
    made, other = rotated(grouping=""), rotated()
    says = "the model has widths None and bases None at its sites"
    one_line(lambda: save(made.model, tmp_path / "model", plan=other.plan, inner=made.inner), says)
