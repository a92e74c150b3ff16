"""leading_energy on real activations: keys and values of the bundled model, from one text to another."""

from __future__ import annotations

import pytest
import torch

from rotcheck.bases import principal_basis
from rotcheck.models import bundled
from rotcheck.models.loading import BUNDLED, load_model, load_tokenizer
from rotcheck.models.text import read_text, token_windows
from rotcheck.subjects import Rotation

LAYERS = (0, 5, 11)


@pytest.fixture(scope="module")
def tensors():
    """``tensors[text][layer, projection]``: rows (tokens, heads, head size) in token order."""
    model, tokenizer = load_model(BUNDLED, torch.float32), load_tokenizer(BUNDLED)
    found = {}
    for text, path in (("calibration", bundled.calibration_text()), ("evaluation", bundled.evaluation_text())):
        kept = found.setdefault(text, {})
        hooks = [
            getattr(model.model.decoder.layers[layer].self_attn, name).register_forward_hook(
                lambda module, args, output, key=(layer, name), kept=kept: kept.setdefault(key, []).append(output)
            )
            for layer in LAYERS
            for name in ("k_proj", "v_proj")
        ]
        with torch.no_grad():
            for window in token_windows(tokenizer, read_text(path), context=256, windows=10, seed=0):
                model(window)
        for hook in hooks:
            hook.remove()
    heads = model.config.num_attention_heads
    return {
        text: {key: torch.cat(parts).flatten(0, 1).double().unflatten(1, (heads, -1)) for key, parts in kept.items()}
        for text, kept in found.items()
    }


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", ["k_proj", "v_proj"])
@pytest.mark.parametrize("centred", [False, True])
def test_every_head_is_decided_both_ways(run, tensors, layer, name, centred):
    """No law is assumed of these rows, and the text is another one: the eighth that is allowed for drift covers it."""
    calibration, evaluation = (tensors[text][layer, name] for text in ("calibration", "evaluation"))
    for head in range(calibration.shape[1]):
        rows = calibration[:, head]
        mean = rows.mean(0) if centred else torch.zeros(rows.shape[1], dtype=torch.float64)
        covariance = (rows - mean).T @ (rows - mean) / len(rows)
        basis = principal_basis(covariance)[0]
        declared = {"basis": basis, "covariance": covariance, "samples": evaluation[:, head]}
        declared |= {"mean": mean} if centred else {}
        right = run("leading_energy", Rotation(lambda x, u=basis, m=mean: (x - m) @ u, **declared))
        assert right.outcome.value == "passed", f"head {head}: {right}"
        wrong = run("leading_energy", Rotation(lambda x, u=basis, m=mean: (x - m) @ u.T, **declared))
        assert (wrong.outcome.value, wrong.matched) == ("failed", "the transposed basis"), f"head {head}: {wrong}"


def test_real_rows_are_worth_fewer_than_they_are(run, tensors):
    """Keys of a middle layer follow their text: ten windows of 256 tokens are worth a fraction of that."""
    rows = tensors["evaluation"][5, "k_proj"][:, 2]
    covariance = rows.T @ rows / len(rows)
    basis = principal_basis(covariance)[0]
    verdict = run("leading_energy", Rotation(lambda x: x @ basis, basis=basis, covariance=covariance, samples=rows))
    worth = dict(verdict.facts)["independent rows"]
    assert worth < len(rows) / 3


def test_values_in_the_key_basis_are_caught_with_the_data_of_the_model(run, tensors):
    keys, values = (tensors["calibration"][11, name][:, 1] for name in ("k_proj", "v_proj"))
    (key_basis, _), (value_basis, _) = (principal_basis(x.T @ x / len(x)) for x in (keys, values))
    subject = Rotation(
        lambda x: x @ key_basis,
        basis=value_basis,
        covariance=values.T @ values / len(values),
        neighbours={"keys": key_basis},
        samples=tensors["evaluation"][11, "v_proj"][:, 1],
    )
    verdict = run("leading_energy", subject)
    assert (verdict.outcome.value, verdict.matched) == ("failed", "the basis of keys")
