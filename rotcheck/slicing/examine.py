"""Whether a model is what its basis manifest says: form, graph, bases, shortcuts, online rotations, bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from rotcheck.checking import Broken, Measurement, decide
from rotcheck.errors import RotcheckError
from rotcheck.outcome import Allowance, Distance, Outcome
from rotcheck.slicing.contents import Held, bases, online_rotations, shortcuts
from rotcheck.slicing.describe import stored_tensors
from rotcheck.slicing.manifest import MANIFEST, BasisManifest, digest, read_manifest
from rotcheck.slicing.statement import RESAVE, graph, wrong_config, wrong_model, wrong_places, wrong_tensors, wrong_uses
from rotcheck.slicing.store import load


def examine(manifest: BasisManifest, config: Any, tensors: Mapping[str, Tensor]) -> Iterator[Measurement | Broken]:
    """What a manifest says of a model, held against its configuration and its tensors.

    Parameters
    ----------
    manifest
        From :func:`rotcheck.slicing.manifest.read_manifest`.
    config
        Of the model.
    tensors
        Those that the model stores, by name: :func:`rotcheck.slicing.describe.stored_tensors`.
    """
    facts = manifest.facts
    tensors = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    # One after the other, because each stage looks up what the one before has found to be there.
    for stage in (wrong_model, wrong_places):
        if wrong := list(stage(facts, config)):
            yield from wrong
            return
    yield from wrong_config(facts, config)
    if wrong := list(wrong_tensors(facts, tensors)):
        yield from wrong
        return
    wanted = graph(facts, config, tensors)
    yield from wrong_uses(facts, wanted)
    if not manifest.private:
        found = list(bases(manifest))
        yield from found
        if all(_failed(finding) is None for finding in found):
            held = Held(manifest=manifest, tensors=tensors, uses=wanted)
            yield from shortcuts(held)
            yield from online_rotations(held)
    yield _bytes(manifest, tensors)


def verify_manifest(directory: str | os.PathLike[str]) -> tuple[Broken, ...]:
    """What is wrong with a saved model according to the manifest that it carries; empty when nothing is.

    For a runtime that asserts, before it serves a rotated model, that nothing was lost or changed on the way:
    ``if wrong := verify_manifest(directory): raise RuntimeError(wrong[0].what)``. The check ``basis_manifest`` (ROT306)
    reports the same.

    Raises
    ------
    RotcheckError
        The directory holds no model that :func:`rotcheck.slicing.load` reads, or no manifest, or a damaged one.
    """
    model, manifest = load(directory), read_manifest(directory)
    if manifest is None:
        raise RotcheckError(f"{os.fspath(directory)} carries no {MANIFEST}; save the model with plan= or inner=")
    findings = examine(manifest, model.config, stored_tensors(model))
    return tuple(wrong for finding in findings if (wrong := _failed(finding)) is not None)


def _failed(finding: Measurement | Broken) -> Broken | None:
    if isinstance(finding, Broken):
        return finding
    outcome, matched, _ = decide(finding)
    if outcome is Outcome.PASSED:
        return None
    what = f"{finding.verb} {matched.name}" if matched else f"does not have {finding.claim.name}"
    size = f"relative error {finding.claim.error:.2e}, allowed {finding.allowed.value:.2e}"
    return Broken(what=f"{what} at {finding.place} ({size})", place=finding.place, hint=finding.hint)


def _bytes(manifest: BasisManifest, tensors: Mapping[str, Tensor]) -> Measurement | Broken:
    stated = manifest.facts.tensors
    changed = [name for name, tensor in tensors.items() if digest(tensor) != stated[name].sha256]
    if changed:
        what = (
            f"holds other bytes than {MANIFEST} names in {len(changed)} of {len(tensors)} tensors, first {changed[0]}"
        )
        return Broken(what=what, place=changed[0], hint=RESAVE)
    known = "" if not manifest.private else "; its bases are private, so nothing is known of what they do"
    return Measurement(
        claim=Distance(name=f"the bytes that {MANIFEST} names{known}", error=0.0),
        allowed=Allowance(value=0.0, derivation="equality of SHA-256"),
        verb="holds",
        witness=f"{len(tensors)} tensors, {len(manifest.facts.bases)} bases",
    )
