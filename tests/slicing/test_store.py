"""A saved model comes back bit for bit: dtype, logits, mode, generation config and tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rotcheck.errors import RotcheckError
from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.slicing import Schedule, fuse, load, random_plan, rotate_and_slice, save

SCHEDULE = Schedule.linear(0.1, 0.5)


def sliced(grouping="per-layer", **variant):
    return rotate_and_slice(adversarial_opt(seed=131, **variant), random_plan(40, 3, grouping, SCHEDULE, 132))


def through_auto(directory, **options):
    return AutoModelForCausalLM.from_pretrained(directory, **options)


@pytest.mark.parametrize("reader", [load, through_auto])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtype_and_logits_are_the_same(tmp_path, reader, dtype, logits_of):
    model = sliced(dtype=dtype)
    batch = adversarial_batch(model, seed=133)
    save(model, tmp_path / "model")
    again = reader(tmp_path / "model")
    assert {parameter.dtype for parameter in again.parameters()} == {dtype}
    assert torch.equal(logits_of(again, batch), logits_of(model, batch))
    assert not any(module.training for module in again.modules())


@pytest.mark.parametrize("reader", [load, through_auto])
@pytest.mark.parametrize("grouping", ["global", "k-block:2"])
@pytest.mark.parametrize("variant", [{"word_embed_proj_dim": 24}, {"enable_bias": False, "tied": False}])
def test_every_variant_and_grouping(tmp_path, reader, grouping, variant, logits_of):
    model = sliced(grouping, **variant)
    batch = adversarial_batch(model, seed=133)
    save(model, tmp_path / "model")
    again = reader(tmp_path / "model")
    assert type(again) is type(model)
    assert torch.equal(logits_of(again, batch), logits_of(model, batch))


def test_another_dtype_on_request(tmp_path):
    save(sliced(), tmp_path / "model")
    for reader in (load, through_auto):
        again = reader(tmp_path / "model", dtype=torch.bfloat16)
        assert {parameter.dtype for parameter in again.parameters()} == {torch.bfloat16}


def test_saving_twice_gives_the_same_bytes(tmp_path):
    model = sliced()
    save(model, tmp_path / "one")
    save(load(tmp_path / "one"), tmp_path / "two")
    for name in ("model.safetensors", "config.json", "generation_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_config_is_plain_json_and_keeps_the_hidden_size(tmp_path):
    model = sliced()
    save(model, tmp_path / "model")
    fields = json.loads((tmp_path / "model" / "config.json").read_text())
    assert fields["model_type"] == "rotcheck_sliced_opt"
    assert fields["base_model_type"] == "opt"
    assert fields["hidden_size"] == 40
    assert fields["site_widths"] == list(random_plan(40, 3, "per-layer", SCHEDULE).widths)
    assert fields["site_bases"] == list(range(7))
    assert fields["norm_divisor"] == [40] * 7
    assert fields["tie_word_embeddings"] is False


def test_saving_changes_nothing_in_the_model(tmp_path):
    model = sliced()
    dtype, architectures = model.config.dtype, model.config.architectures
    save(model, tmp_path / "model")
    assert model.config.dtype is dtype
    assert model.config.architectures == architectures


def test_the_tokenizer_goes_along(tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "a": 1, "b": 2}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<pad>")), pad_token="<pad>"
    )
    save(sliced(), tmp_path / "model", tokenizer)
    assert AutoTokenizer.from_pretrained(tmp_path / "model")("b")["input_ids"] == [2]


def test_the_generation_config_goes_along(tmp_path):
    model = sliced()
    model.generation_config.max_new_tokens = 17
    save(model, tmp_path / "model")
    assert load(tmp_path / "model").generation_config.max_new_tokens == 17


def test_a_fused_model_can_be_saved(tmp_path, logits_of):
    model = fuse(adversarial_opt(seed=131))
    batch = adversarial_batch(model, seed=133)
    save(model, tmp_path / "model")
    assert torch.equal(logits_of(load(tmp_path / "model"), batch), logits_of(model, batch))


def test_shards_written_by_transformers_are_read(tmp_path, logits_of):
    model = sliced()
    model.save_pretrained(tmp_path / "model", max_shard_size="40KB")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 1
    batch = adversarial_batch(model, seed=133)
    assert torch.equal(logits_of(load(tmp_path / "model"), batch), logits_of(model, batch))


def test_a_directory_with_files_is_not_written_to(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(RotcheckError, match="not empty"):
        save(sliced(), tmp_path / "model")
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "notes.txt"]


def test_an_empty_directory_and_missing_parents_are_fine(tmp_path):
    (tmp_path / "empty").mkdir()
    save(sliced(), tmp_path / "empty")
    save(sliced(), tmp_path / "some" / "where" / "model")
    assert load(tmp_path / "empty").config.hidden_size == load(tmp_path / "some/where/model").config.hidden_size


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_path_that_is_no_directory_is_not_replaced(tmp_path, kind):
    target = tmp_path / "model"
    target.write_text("mine") if kind == "file" else target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RotcheckError, match="not a directory"):
        save(sliced(), target)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failure_leaves_nothing_behind(tmp_path):
    class Broken:
        def save_pretrained(self, directory):
            Path(directory, "half").write_text("written")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save(sliced(), tmp_path / "model", Broken())
    assert list(tmp_path.iterdir()) == []


def test_a_stock_model_is_not_ours_to_save(tmp_path):
    with pytest.raises(RotcheckError, match="not a sliced model"):
        save(adversarial_opt(seed=131), tmp_path / "model")
