"""The subjects of ``rotcheck run`` without a target: their labels, and that our own paths pass."""

from __future__ import annotations

import shutil

import pytest
import torch

from rotcheck.errors import RotcheckError
from rotcheck.models import bundled
from rotcheck.models.adversarial import adversarial_opt
from rotcheck.models.loading import load_model, load_tokenizer
from rotcheck.models.tiny import SMALL, adversarial_model
from rotcheck.outcome import Outcome
from rotcheck.registry import choose
from rotcheck.runner import verify
from rotcheck.slicing import identity_plan, rotate_and_slice, save
from rotcheck.subjects.builtin import COARSE, _inputs, builtin_subjects, model_subjects
from rotcheck.subjects.builtin_rotations import EVEN_INPUTS, architecture_subjects, possible, runs_in_float64

ROTATIONS = [
    "principal axes of the stream, float64",
    "Haar rotation of size 96, float64",
    "principal axes of the stream, float32",
    "Haar rotation of size 96, float32",
]

HISTORICAL = [
    "historical lookup",
    "historical affine path",
    "historical script, keys",
    "historical script, values",
    "historical engine",
    "historical lookup, from outside",
    "historical affine path, from outside",
    "historical script, from outside",
    "historical script, transpose repaired",
    "historical engine, from outside",
]


def caches(layer):
    return [
        "spectral cache, spectral water-filling 3 bits, coordinate",
        f"codec of keys, layer {layer} head 0, spectral water-filling 3 bits, coordinate",
        f"codec of values, layer {layer} head 0, spectral water-filling 3 bits, gaussian, norms apart",
    ]


MORE_CACHES = [
    "spectral cache, spectral two-regimes 2.5 bits, minmax, uncentred",
    "spectral cache, spectral water-filling 4 bits, gaussian, norms apart, sketch of 64",
    "spectral cache, haar uniform 4 bits, regime",
    "spectral cache, spectral water-filling 3 bits, coordinate, bfloat16 model",
]
MORE_CODECS = [
    "codec of keys, layer 1 head 0, spectral 4/2, minmax",
    "codec of values, layer 1 head 0, spectral two-regimes 2.5 bits, regime, uncentred",
    "codec of keys, layer 1 head 0, spectral water-filling 3 bits, uniform",
]
NEEDS_MORE = {"historical": 7, "codec": 4, "Haar": 2}
"""Checks that do not apply at most, by the beginning of a label; one elsewhere."""

MODELS_NEED = {
    "full width": {"compiled", "consumers", "sharding", "routing", "online_rotations"},
    "sliced": {"online_rotations", "head_bases", "shortcuts"},
}
"""Checks that need what these models do not have: shards, a router, rotations of heads. By the end of a label."""


def both(label):
    return [f"{label}, full width", f"{label}, 25% sliced"]


QUICK = [
    *HISTORICAL,
    *ROTATIONS,
    *caches(6),
    "R1 R2 R3 R4 random-hadamard, full width",
    "per-layer, 25% sliced",
    "global, 25% sliced",
    *both("k-block:2"),
]
EVERYTHING = [
    *(name.replace("96", "20") for name in ROTATIONS),
    caches(1)[0],
    *MORE_CACHES,
    *caches(1)[1:],
    *MORE_CODECS,
    "R1 R2 R3 R4 haar, full width",  # no Hadamard matrix has the 10 coordinates of a head
    "model.decoder.layers.1.fc2 in 4 bits behind a Hadamard rotation",
    *(name for label in ("per-layer", "global", "k-block:1", "k-block:2", "k-block:3") for name in both(label)),
    *both("global unit_trace"),
    *both("global token_rms"),
    *both("global haar"),
    *both("k-block:2 attention"),
    "per-layer sequential, 25% sliced",
    *both("k-block:2 float32"),
    *both("k-block:2 bfloat16"),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A small model beside the bundled tokenizer: more than the quick subjects would take long on the bundled one."""
    where = tmp_path_factory.mktemp("model")
    shape = {"layers": 3, "hidden_size": 20, "heads": 2, "ffn_dim": 44, "vocab_size": 1024}
    adversarial_opt(seed=0, max_positions=32, **shape).save_pretrained(where)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled.model_directory() / name, where)
    return str(where)


@pytest.fixture(scope="module")
def quick():
    return list(builtin_subjects())


@pytest.fixture(scope="module")
def everything(directory):
    return {labelled.label: labelled for labelled in model_subjects(directory, everything=True, seed=0)}


def test_quick_labels(quick):
    assert [labelled.label for labelled in quick] == QUICK
    assert all(str(labelled.subject) == labelled.label for labelled in quick)


@pytest.mark.parametrize("label", QUICK)
def test_every_quick_subject_passes(label, quick):
    labelled = next(found for found in quick if found.label == label)
    report = verify(
        labelled.subject, expected_failures=labelled.expected_failures, allow_undecided=labelled.allow_undecided
    )
    assert report.exit_code == 0, "\n".join(str(v) for v in report if v.outcome is not Outcome.PASSED)
    assert {verdict.check for verdict in report} == {check.name for check in choose(labelled.subject.kind)}
    missing = [verdict.check for verdict in report if verdict.outcome is Outcome.NOT_APPLICABLE]
    if found := next((names for end, names in MODELS_NEED.items() if label.endswith(end)), None):
        assert set(missing) <= found
        assert label.startswith("R1") != ("online_rotations" in missing)
    else:
        assert len(missing) <= NEEDS_MORE.get(label.split()[0], 1), missing


def test_labels_of_everything(everything):
    assert list(everything) == EVERYTHING


def test_earlier_subjects_keep_their_dtype_when_later_ones_are_built(everything):
    """The models of the float32 and bfloat16 subjects are copies."""
    for label, labelled in everything.items():
        if hasattr(labelled.subject, "before"):
            kind = next((k for k in ("float32", "bfloat16") if label.endswith(f"{k}, full width")), "float64")
            assert labelled.subject.before.dtype is labelled.subject.after.dtype is getattr(torch, kind), label


@pytest.mark.parametrize("label", EVERYTHING[4:])
def test_everything_passes(label, everything):
    labelled = everything[label]
    report = verify(labelled.subject, allow_undecided=labelled.allow_undecided, ignore=["reload", "decoding"])
    assert report.exit_code == 0, "\n".join(str(v) for v in report if v.outcome is not Outcome.PASSED)


def test_only_16_bits_and_even_inputs_may_be_undecided(everything):
    for label, labelled in everything.items():
        allowed = COARSE if "k-block:2 bfloat16" in label else EVEN_INPUTS if "in 4 bits" in label else {}
        assert dict(labelled.allow_undecided) == allowed
        assert not labelled.expected_failures


def test_inputs_are_three_rows_of_unlike_length():
    model = load_model("bundled")
    inputs = _inputs("bundled", model)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    assert mask.sum(1).tolist() == [24, 18, 16]
    assert (mask.diff(dim=1) >= 0).all()
    assert (ids[mask == 0] == model.config.pad_token_id).all()
    text = load_tokenizer("bundled").decode(ids[1][mask[1].bool()])
    assert text in bundled.evaluation_text().read_text(encoding="utf-8")


def test_the_seed_draws_other_calibration_windows(directory):
    first, second = (next(iter(model_subjects(directory, seed=seed))).subject for seed in (0, 1))
    assert not torch.equal(first.covariance, second.covariance)


ARCHITECTURES = [
    name
    for kind in SMALL
    for name in (
        [f"{kind}, R2 R3 R4 random-hadamard, full width"]
        if kind in ("gemma2", "gemma3_text")
        else [f"{kind}, R1 R2 R3 R4 random-hadamard, full width", f"{kind}, per-layer, 25% sliced, R2 R3 R4 haar"]
    )
]


@pytest.fixture(scope="module")
def architectures():
    lines = []
    found = {labelled.label: labelled for labelled in architecture_subjects(0, "cpu", lines.append)}
    return found, lines


def test_one_of_every_architecture(architectures):
    found, lines = architectures
    assert list(found) == ARCHITECTURES
    assert len(lines) == 2
    for line, kind in zip(lines, ("gemma2", "gemma3_text"), strict=True):
        assert line.startswith(f"{kind}, R1 and slicing left out: {kind} has norms on the outputs of its branches")


@pytest.mark.parametrize("label", ARCHITECTURES)
def test_every_architecture_is_right(label, architectures):
    """By the checks that hold tensors and logits against the original; ``rotcheck run --all`` runs them all."""
    labelled = architectures[0][label]
    assert labelled.subject.name == label
    report = verify(labelled.subject, select=["equivalence", "tensor_bases", "basis_manifest"])
    assert report.exit_code == 0, "\n".join(str(v) for v in report if v.outcome is not Outcome.PASSED)
    assert all(verdict.outcome is Outcome.PASSED for verdict in report)


def test_only_routers_may_be_undecided_in_16_bits(architectures):
    for label, labelled in architectures[0].items():
        routed = label.endswith("full width") and label.split(",")[0] in ("mixtral", "qwen2_moe")
        assert set(labelled.allow_undecided) == ({"precision_scaling"} if routed else set())


def test_a_model_without_hadamard_sizes_gets_haar_matrices(everything):
    subject = everything["R1 R2 R3 R4 haar, full width"].subject
    assert subject.after.config.online_hidden == [[4, 11]] * 3
    assert subject.after.config.online_queries is True


def test_what_an_architecture_lacks_is_left_out():
    config = adversarial_opt(seed=0, layers=1).config
    assert possible(config) == ("R1", "R2", "R3", "R4")
    config.do_layer_norm_before = False
    assert possible(config) == ("R2", "R3", "R4")


def test_a_refused_stream_has_its_cache_and_its_inner_rotations(tmp_path, directory):
    where = shutil.copytree(
        directory, tmp_path / "gemma", ignore=shutil.ignore_patterns("*.safetensors", "config.json")
    )
    adversarial_model("gemma3_text", seed=0, layers=2, vocab_size=1024).save_pretrained(where)
    lines = []
    labels = [labelled.label for labelled in model_subjects(str(where), notify=lines.append)]
    assert labels == [*caches(1), "R2 R3 R4 random-hadamard, full width"]
    (line,) = lines
    assert line.startswith(f"{where}: R1 and slicing left out: gemma3_text has norms on the outputs")


def test_experts_run_in_float64():
    model = adversarial_model("mixtral", seed=0, layers=1)
    model.config._experts_implementation = "grouped_mm"
    assert runs_in_float64(model) is model
    assert model(torch.arange(2, 9).unsqueeze(0)).logits.isfinite().all()


def test_a_saved_manifest_comes_along(tmp_path):
    plan, directory = identity_plan(40, 1), tmp_path / "rotated"
    save(rotate_and_slice(adversarial_opt(seed=0, layers=1), plan), directory, plan=plan)
    (labelled,) = model_subjects(str(directory))
    assert labelled.subject.manifest.facts.bases[0].sites == (0, 1, 2)


def test_a_sliced_directory_is_one_subject(tmp_path):
    directory = tmp_path / "sliced"
    save(rotate_and_slice(adversarial_opt(seed=0, layers=1), identity_plan(40, 1)), directory)
    (labelled,) = model_subjects(str(directory))
    assert labelled.label == str(directory)
    assert labelled.subject.kind == "SlicedModel"
    assert labelled.subject.original is None
    assert labelled.subject.batches[0]["input_ids"].shape == (3, 24)
    report = verify(labelled.subject)
    assert report.exit_code == 0
    assert {v.check for v in report if v.outcome is Outcome.NOT_APPLICABLE} == {
        "shortcuts", "kept_energy", "projected_stream", "tensor_bases", "basis_manifest", "head_bases",
        "online_rotations",
    }  # fmt: skip


def test_a_missing_model_is_one_line():
    with pytest.raises(RotcheckError, match=r"^no model at ./missing: give a directory"):
        list(model_subjects("./missing"))


def test_a_model_with_three_positions_is_refused(tmp_path):
    directory = tmp_path / "sliced"
    save(rotate_and_slice(adversarial_opt(seed=0, layers=1, max_positions=3), identity_plan(40, 1)), directory)
    with pytest.raises(RotcheckError, match=r"takes sequences of 3 tokens; the checks need at least 4"):
        list(model_subjects(str(directory)))
