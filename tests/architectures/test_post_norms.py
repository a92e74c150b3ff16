"""What cannot be folded is refused by name, before anything is computed, and what does not need it is not refused."""

from __future__ import annotations

import pytest

from rotcheck.errors import RotcheckError
from rotcheck.models import architecture_of, sites
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.tiny import adversarial_model
from rotcheck.slicing import Schedule, calibrate, fuse, inner_plan, random_plan, rotate_and_slice, sequential_plan

GEMMA = ["gemma2", "gemma3_text"]
REFUSED = r"{} has norms on the outputs of its branches \(.*post_attention_layernorm.*post_feedforward_layernorm\).*R2"


@pytest.mark.parametrize("model_type", GEMMA)
def test_of_gemma(model_type, subject):
    model, message = subject(model_type).model, REFUSED.format(model_type)
    plan = random_plan(48, 3, "global")
    attempts = (
        lambda: sites(architecture_of(model), model.config),
        lambda: rotate_and_slice(model, plan),
        lambda: rotate_and_slice(model, plan, inner=inner_plan(model)),
        lambda: fuse(model),
        lambda: calibrate(model, [subject(model_type).batch]),
        lambda: sequential_plan(model, [subject(model_type).batch], Schedule.constant(0.25)),
    )
    for attempt in attempts:
        with pytest.raises(RotcheckError, match=message):
            attempt()


@pytest.mark.parametrize("model_type", GEMMA)
def test_all_of_its_inner_rotations_together(model_type, subject, error):
    made = subject(model_type)
    assert error(rotate_and_slice(made.model, None, inner=inner_plan(made.model, seed=9)), made) <= 1e-12


def test_of_opt_350m_which_keeps_its_inner_rotations(subject, error):
    made = subject("opt", do_layer_norm_before=False, word_embed_proj_dim=24)
    with pytest.raises(RotcheckError, match="OPT-350m"):
        rotate_and_slice(made.model, random_plan(48, 3, "global"))
    assert error(rotate_and_slice(made.model, None, inner=inner_plan(made.model, seed=9)), made) <= 1e-12


@pytest.mark.parametrize("changes", [{"mlp_only_layers": [1]}, {"decoder_sparse_step": 2}])
def test_of_dense_layers_between_experts(changes, subject, error):
    made = subject("qwen2_moe", **changes)
    with pytest.raises(RotcheckError, match=rf"dense layers.*{next(iter(changes))}=.*experts in every layer"):
        rotate_and_slice(made.model, random_plan(48, 3, "global"))
    with pytest.raises(RotcheckError, match=r"has no model\.layers\.\d\.mlp\.experts"):
        rotate_and_slice(made.model, None, inner=inner_plan(made.model, rotations=["R4"]))
    heads = inner_plan(made.model, rotations=["R2", "R3"], seed=9)
    assert error(rotate_and_slice(made.model, None, inner=heads), made) <= 1e-12


def test_a_model_with_post_norms_still_answers(subject):
    model = adversarial_model("gemma2", seed=3)
    assert model(**adversarial_batch(model, seed=4, padded=False)).logits.isfinite().all()
