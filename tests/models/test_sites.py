"""Sites of an OPT model: their number, order, names, readers and writers."""

from __future__ import annotations

import pytest
from transformers import GPT2Config, OPTConfig, OPTModel

from rotcheck.errors import RotcheckError
from rotcheck.models import ARCHITECTURES, architecture_of, sites
from rotcheck.models.adversarial import adversarial_opt


def config(**changes):
    return OPTConfig(num_hidden_layers=3, hidden_size=40, num_attention_heads=5, **changes)


def sites_of(**changes):
    found = config(**changes)
    return sites(architecture_of(found), found)


def test_two_per_layer_and_the_head():
    names = [site.name for site in sites_of()]
    assert names[0] == "layer 0 attention input"
    assert names[5] == "layer 2 feed-forward input"
    assert names[6] == "head input"
    assert [site.index for site in sites_of()] == list(range(7))


def test_every_writer_and_reader_is_listed_once():
    found = sites_of()
    readers = [path for site in found for path in site.readers]
    writers = [path for site in found for path in site.writers]
    assert len(set(readers)) == len(readers) == 3 * 4 + 1
    assert len(set(writers)) == len(writers) == 3 * 2 + 2
    assert found[0].writers == ("model.decoder.embed_tokens", "model.decoder.embed_positions")
    assert found[1].writers == ("model.decoder.layers.0.self_attn.out_proj",)
    assert found[6].readers == ("lm_head",)


def test_projections_write_and_read_where_they_exist():
    found = sites_of(word_embed_proj_dim=24)
    assert found[0].writers == ("model.decoder.project_in", "model.decoder.embed_positions")
    assert found[6].readers == ("model.decoder.project_out",)


@pytest.mark.parametrize("changes", [{}, {"word_embed_proj_dim": 24}])
def test_every_path_exists_in_the_model(changes):
    model = adversarial_opt(seed=0, **changes)
    for site in sites(architecture_of(model), model.config):
        for path in (site.norm, *site.readers, *site.writers):
            assert model.get_submodule(path).weight is not None


def test_the_two_norms_called_final_layer_norm_are_told_apart():
    found = sites_of()
    assert found[5].norm == "model.decoder.layers.2.final_layer_norm"
    assert found[6].norm == "model.decoder.final_layer_norm"


def test_post_norm_is_refused_by_name():
    with pytest.raises(RotcheckError, match=r"OPT-350m.*self_attn_layer_norm"):
        sites_of(do_layer_norm_before=False)


def test_a_missing_final_norm_is_refused_by_name():
    with pytest.raises(RotcheckError, match="final_layer_norm"):
        sites_of(_remove_final_layer_norm=True)


def test_an_undeclared_type_says_how_to_declare_it():
    with pytest.raises(
        RotcheckError, match=r"'gpt2' is not declared.*'rotcheck.architectures'.*docs/new-architecture.md"
    ):
        architecture_of(GPT2Config())


def test_something_without_a_config_is_an_error():
    with pytest.raises(RotcheckError, match=r"no config.model_type"):
        architecture_of(object())


def test_a_model_without_its_head_is_an_error():
    with pytest.raises(RotcheckError, match="lm_head"):
        architecture_of(OPTModel(OPTConfig(num_hidden_layers=1, hidden_size=8, num_attention_heads=2, vocab_size=9)))


def test_the_table_of_architectures_cannot_be_changed():
    with pytest.raises(TypeError):
        ARCHITECTURES["other"] = ARCHITECTURES["opt"]
