"""Every bug planted in a compressed cache is found by the checks that say so, and nothing is said of right caches."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from rotcheck.defects import defects
from rotcheck.defects._spectral import bench
from rotcheck.outcome import Outcome
from rotcheck.registry import choose, find
from rotcheck.witness import Witness

KIND = "CacheRotation"
SEEDS = (0, 7)
DEFECTS = defects(KIND)
TWINS = list(dict.fromkeys(defect.twin for defect in DEFECTS))
OWN = [check for check in choose(KIND) if check.kinds == (KIND,)]
LETTERS = {Outcome.PASSED: ".", Outcome.FAILED: "F", Outcome.UNDECIDED: "u", Outcome.NOT_APPLICABLE: "-"}

HEADLINES = {
    "cache_transposed_both_ways": "computes x @ basis.T at layer 0 head 0 keys, declared x @ basis",
    "cache_transposed_one_way": "computes x @ basis.T at layer 0 head 0 keys, declared x @ basis",
    "cache_ascending_axes": "computes x @ basis.flip(1) at layer 0 head 0 keys, declared x @ basis",
    "cache_values_in_the_key_basis": (
        "computes x in the basis of layer 0 head 0 keys at layer 0 head 0 values, declared x @ basis"
    ),
    "cache_basis_of_the_next_head": (
        "computes x in the basis of layer 0 head 1 keys at layer 0 head 0 keys, declared x @ basis"
    ),
    "cache_query_heads_dealt_out": (
        "gives the scores of queries in the basis of KV head 1 (heads dealt out in turn) at layer 0 query head 1, "
        "declared the scores of plain queries and keys"
    ),
    "cache_queries_transposed": (
        "gives the scores of queries times basis.T at layer 0 query head 0, "
        "declared the scores of plain queries and keys"
    ),
    "cache_queries_not_rotated": (
        "gives the scores of queries that are not rotated at layer 0 query head 0, "
        "declared the scores of plain queries and keys"
    ),
    "cache_back_by_the_next_head": (
        "without loss gives values un-rotated by the basis of the next head at layer 0 head 0 values, "
        "declared the logits of a plain cache"
    ),
    "cache_values_never_unrotated": (
        "without loss gives values that are still rotated, with their mean at layer 0 head 0 values, "
        "declared the logits of a plain cache"
    ),
    "cache_keys_never_unrotated": (
        "without loss gives keys that are still rotated for queries that are not at layer 0 head 0 keys, "
        "declared the logits of a plain cache"
    ),
    "cache_mean_not_added_back": (
        "without loss gives values without their mean at layer 0 head 0 values, declared the logits of a plain cache"
    ),
    "cache_update_returns_its_input": (
        "is not used: the logits differ from those with a plain cache by 0.0e+00, rounding explains"
    ),
    "cache_hook_never_fires": (
        "is not used: the logits differ from those with a plain cache by 0.0e+00, rounding explains"
    ),
    "cache_bits_without_effect": "has bits without effect: keys and values change by",
    "cache_layer_skipped": (
        "gives back compressed vectors in 8 of 12 heads at layer 2 head 0 keys, layer 2 head 0 values, "
        "layer 2 head 1 keys and 1 more, declared compressed vectors in all 12 heads that it declares"
    ),
    "cache_values_passed_over": (
        "declares rotations for the keys alone at layer 0 head 0 values, layer 0 head 1 values, "
        "layer 1 head 0 values and 3 more, declared all 12 heads that are stored"
    ),
    "cache_query_heads_for_kv_heads": (
        "declares rotations for 4 query heads in each layer at layer 0 head 2 keys, layer 0 head 2 values, "
        "layer 0 head 3 keys and 9 more, declared all 12 heads that are stored"
    ),
    "cache_width_derived": "declares a rotation of width 11 for vectors of width 20 at layer 0 head 0 keys",
    "cache_scale_of_the_call": (
        "does not match what comes back when filled at once at layer 0 head 0 keys, filled token by token"
    ),
    "cache_batch_dropped": "filled one row at a time",
    "cache_norms_not_reordered": "filled with rows reordered before the last token",
    "cache_norms_not_cropped": "filled after 2 other tokens were cropped",
    "cache_codes_in_int32": "takes per token 384 bytes, declared 96 bytes",
    "cache_copy_kept": "takes per token 576 bytes, declared 96 bytes",
    "cache_kept_for_each_query_head": "takes per token 192 bytes, declared 96 bytes",
    "cache_whole_head_under_partial_rotary": (
        "has the principal axes of the whole head at layer 0 head 0 keys, "
        "declared axes in the first 12 coordinates or in the others"
    ),
    "cache_calibrated_before_rope": (
        "makes the rotated covariance that of the supplied basis (not its eigenbasis) at layer 0 head 0 keys, "
        "declared diagonal, largest variance first"
    ),
    "cache_saved_under_another_name": "cannot be run: reload of planted raised KeyError: 'eigenvectors'",
    "cache_saved_in_half_precision": "does not match the same keys and values at layer 0 head 0 keys",
}
"""What the message says of each bug, by the check that says most."""


@cache
def verdict(name: str, check: str, seed: int):
    defect = next(d for d in DEFECTS if d.name == name)
    return find(check).run(defect.plant(seed), Witness(seed=seed))


@cache
def twin_verdicts(twin, seed: int):
    """Every check on a right cache; many defects share one."""
    subject = twin(seed)
    return {check.name: check.run(subject, Witness(seed=seed)) for check in choose(KIND)}


def row(cells):
    return "\n" + "  ".join(f"{check}: {LETTERS[outcome]}" for check, outcome in cells.items())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_every_killer_fails(defect, seed):
    cells = {check: verdict(defect.name, check, seed).outcome for check in defect.killed_by}
    assert set(cells.values()) == {Outcome.FAILED}, row(cells)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.__name__)
def test_no_check_fails_or_is_undecided_on_a_right_cache(twin, seed):
    found = twin_verdicts(twin, seed)
    wrong = {name: str(v) for name, v in found.items() if v.outcome in (Outcome.FAILED, Outcome.UNDECIDED)}
    assert not wrong, "\n".join(wrong.values())


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_the_killers_would_have_passed_without_the_bug(defect):
    """A check that does not apply to the right cache could not have failed on it."""
    found = {name: twin_verdicts(defect.twin, SEEDS[0])[name].outcome for name in defect.killed_by}
    assert set(found.values()) == {Outcome.PASSED}, row(found)


@pytest.mark.parametrize("check", OWN, ids=lambda check: check.name)
def test_every_check_on_caches_kills_a_bug(check):
    kills = [defect.name for defect in DEFECTS if check.name in defect.killed_by]
    assert kills
    assert any(len(defect.killed_by) <= 2 for defect in DEFECTS if defect.name in kills), kills


def test_the_checks_on_heads_kill_bugs_of_caches():
    killers = {name for defect in DEFECTS for name in defect.killed_by}
    assert {"side", "energy_order", "round_trip", "isometry"} <= killers


@pytest.mark.parametrize("name", HEADLINES)
def test_the_message_says_what_is_wrong(name):
    said = [verdict(name, check, SEEDS[0]).headline for check in next(d for d in DEFECTS if d.name == name).killed_by]
    assert any(HEADLINES[name] in headline for headline in said), "\n".join(said)
    assert all("\n" not in headline for headline in said)


@pytest.mark.parametrize("name", ["cache_transposed_both_ways", "cache_ascending_axes", "cache_basis_of_the_next_head"])
def test_what_cancels_both_ways_is_invisible_from_outside(name):
    """Round trips, scores and lossless logits are all right: only the rotation itself shows it."""
    for check in ("round_trip", "orthogonality", "isometry", "lossless_cache", "streaming", "scores", "coverage"):
        assert verdict(name, check, SEEDS[0]).outcome is Outcome.PASSED, check


def test_names_kinds_and_sources():
    import re

    assert len({defect.name for defect in DEFECTS}) == len(DEFECTS) >= 40
    names = {check.name for check in choose(KIND)}
    for defect in DEFECTS:
        assert defect.name.startswith("cache_")
        assert re.match(r"[\w.-]+/[\w.-]+(#\d+| \()|class B\d+ \(.+\)", defect.issue), defect.issue
        assert set(defect.killed_by) <= names
        assert not defect.summary.endswith(".")


def test_the_same_seed_plants_the_same_bug():
    defect = next(d for d in DEFECTS if d.name == "cache_values_never_unrotated")
    errors = [find("lossless_cache").run(defect.plant(seed)).claim.error for seed in (3, 3, 4)]
    assert errors[0] == errors[1] != errors[2]


@pytest.mark.parametrize("kind", ["llama", "phi"])
def test_planting_writes_to_nothing_that_is_shared(kind):
    found = bench(SEEDS[0], kind)
    weights = sum(parameter.double().sum().item() for parameter in found.model.parameters())
    bases = torch.stack([path.axes.basis for path in found.codec.keys]).sum().item()
    for defect in DEFECTS:
        defect.plant(SEEDS[0])
    assert sum(parameter.double().sum().item() for parameter in found.model.parameters()) == weights
    assert torch.stack([path.axes.basis for path in found.codec.keys]).sum().item() == bases
    assert not any(module._forward_hooks for module in found.model.modules())
