"""The page on new architectures works as it is printed: its package is installed, and its own tests are run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Starcoder2Config

from rotcheck.errors import RotcheckError
from rotcheck.models import ARCHITECTURES, architecture_of
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.tiny import adversarial_model
from rotcheck.slicing import Schedule, inner_plan, load, random_plan, rotate_and_slice, save
from rotcheck.slicing.sliced import classes

PAGE = Path(__file__).parents[2] / "docs" / "new-architecture.md"
ROOT = PAGE.parents[1]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


DECLARATION, TESTS = blocks("python")
(PROJECT,) = blocks("toml")


def entry_points():
    return tomllib.loads(PROJECT)["project"]["entry-points"]["rotcheck.architectures"]


@pytest.fixture
def starcoder(installed):
    installed(entry_points(), rotcheck_starcoder2=DECLARATION)


def test_the_example_is_short_and_of_a_type_that_is_not_declared_here():
    assert len((DECLARATION + PROJECT).splitlines()) < 60
    assert set(entry_points()) == {"starcoder2"}
    assert "starcoder2" not in ARCHITECTURES
    with pytest.raises(RotcheckError, match=PAGE.name):
        architecture_of(Starcoder2Config())


def test_its_own_tests_pass(starcoder):
    module = {"__name__": "printed"}
    exec(compile(TESTS, str(PAGE), "exec"), module)
    for rotation in ("R1", "R2", "R3", "R4", "per-layer", "k-block:2"):
        for tied in (True, False):
            module["test_nothing_changes_at_full_width"](rotation, tied)
    module["test_a_sliced_model_is_the_model_with_a_projected_stream"]()


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"', '"self_attn.q_proj", "self_attn.k_proj"'),
        ('norm="layernorm"', 'norm="rmsnorm"'),
    ],
)
def test_its_own_tests_fail_for_a_mistake_that_it_lists(right, wrong, installed):
    assert DECLARATION.count(right) == 1
    installed(entry_points(), rotcheck_starcoder2=DECLARATION.replace(right, wrong))
    module = {"__name__": "printed"}
    exec(compile(TESTS, str(PAGE), "exec"), module)
    with pytest.raises(AssertionError):
        module["test_nothing_changes_at_full_width"]("R1", True)


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ('"input_layernorm"', '"ln_1"', r"Starcoder2ForCausalLM has no model\.layers\.0\.ln_1: its declaration names"),
        ('"input_layernorm"', '"mlp.c_fc"', r"model\.layers\.0\.mlp\.c_fc is a Linear without an eps; declare a norm"),
        ('("mlp.c_fc",)', '("mlp.up",)', r"Starcoder2ForCausalLM has no model\.layers\.0\.mlp\.up: its declaration"),
        ('("mlp.c_fc",)', '("mlp.act",)', r"mlp\.act is a \w+ without a weight; declare a linear map"),
        ('"model.layers"', '"model.blocks"', r"Starcoder2ForCausalLM has no model\.blocks\.0\.input_layernorm"),
        (
            '"Starcoder2DecoderLayer"',
            '"Layer"',
            r"modeling_starcoder2 has no Layer, .* starcoder2 names; correct layer",
        ),
        ('head="lm_head"', 'head="head"', r"Starcoder2ForCausalLM has no head: pass the model with its language-model"),
    ],
)
def test_a_name_that_is_not_there_is_one_error(right, wrong, message, installed):
    model = adversarial_stranger()
    installed(entry_points(), rotcheck_starcoder2=DECLARATION.replace(right, wrong))
    with pytest.raises(RotcheckError, match=message):
        rotate_and_slice(model, random_plan(48, 1, "global"))


def adversarial_stranger():
    config = Starcoder2Config(
        vocab_size=9, hidden_size=48, intermediate_size=20, num_hidden_layers=1, num_attention_heads=6,
        num_key_value_heads=2, pad_token_id=1, bos_token_id=2, eos_token_id=2,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


def test_a_width_that_the_configuration_does_not_have(installed):
    wrong = DECLARATION.replace('width="intermediate_size"', 'width="ffn_dim"')
    installed(entry_points(), rotcheck_starcoder2=wrong)
    with pytest.raises(RotcheckError, match=r"Starcoder2Config has no ffn_dim, .* its feed-forward; correct Hidden"):
        inner_plan(adversarial_stranger())


def test_it_comes_back_from_disk_by_both_ways_in(starcoder, tmp_path):
    model = adversarial_model("starcoder2", seed=1, dtype=torch.float32, sliding_window=6)
    plan = random_plan(48, 3, "k-block:2", Schedule.constant(0.25, round_to=1), seed=2)
    sliced = rotate_and_slice(model, plan, inner=inner_plan(model, seed=3))
    save(sliced, tmp_path / "model")
    classes("starcoder2")
    batch = adversarial_batch(model, seed=4)
    with torch.no_grad():
        expected = sliced(**batch).logits
        for reader in (load, AutoModelForCausalLM.from_pretrained):
            assert torch.equal(reader(tmp_path / "model")(**batch).logits, expected)


def test_its_links_lead_somewhere():
    text = PAGE.read_text(encoding="utf-8")
    for path in re.findall(r"`(rotcheck/models/\w+\.py)`", text):
        assert (ROOT / path).is_file(), path
    for page in re.findall(r"\]\(([\w-]+\.md)\)", text):
        assert (PAGE.parent / page).is_file(), page


def test_it_names_every_field():
    from rotcheck.models import Architecture, Branch

    rows = "".join(
        line.split("|")[1] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    )
    own = {"final_norm", "head"}  # these say themselves what they are
    for name in {*Architecture.__dataclass_fields__, *Branch.__dataclass_fields__} - own - {"name"}:
        assert f"`{name}`" in rows, name
