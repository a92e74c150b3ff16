"""ROT202: where the residual streams of two models part."""

from __future__ import annotations

import torch

from rotcheck.checking import Measurement, Missing, Undecided, check
from rotcheck.checks._models import (
    centred,
    describe_site,
    floor_allowance,
    gram_error,
    model_sites,
    record_streams,
    without_stream,
)
from rotcheck.checks._routers import described, enough, settled_tokens
from rotcheck.outcome import Distance, Outcome
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import cast, model_dtype
from rotcheck.tolerance import dtype_name
from rotcheck.witness import Witness


@check(code="ROT202", kinds=["ModelPair"], needs=["modules"])
def streams(subject: ModelPair, witness: Witness) -> list[Measurement] | Missing | Undecided:
    r"""At every site the stream of ``after`` is a rotation of the stream of ``before``.

    Two sets of row vectors H and H' satisfy ``H' = H U`` for some orthogonal U exactly when their Gram matrices
    agree, so ``|H' H'.T - H H.T|_F / |H H.T|_F`` needs no knowledge of U. For LayerNorm models the mean of each
    row is removed first on both sides, except where ``after`` has a norm that no longer does so. The allowance
    is the floor of ``before`` between dtypes at the same site. The first site that disagrees is reported, with
    the modules that wrote it.

    Catches
    -------
    The place of what `equivalence` sees: which layer and branch first writes something else; means left in the
    stream by the fusion.

    Cannot see
    ----------
    A basis that changes where it should not, if reader and writer agree; the head.

    References
    ----------
    spcl/QuaRot#10 (a user localising by hand).
    """
    if (missing := without_stream(subject)) is not None:
        return missing
    batch = subject.batches[0]
    architecture = subject.architecture
    found = model_sites(architecture, subject.before)
    dtype = model_dtype(subject.after)
    exact = cast(subject.before, torch.float64)
    before = record_streams(exact, architecture, batch)
    after = record_streams(cast(subject.after, dtype), architecture, batch)
    coarse_dtype = torch.float32 if dtype is torch.float64 else dtype
    coarse = record_streams(cast(subject.before, coarse_dtype), architecture, batch)
    keep = settled_tokens(exact, subject.before, architecture, [batch], dtype)
    if not enough(keep):
        return Undecided(
            reason=f"the choice of experts is within the rounding of {dtype_name(dtype)} for all tokens but one",
            needs="more tokens, or both models in a finer dtype",
        )
    findings = []
    for site, *three in zip(found, before, after, coarse, strict=True):
        dense, rotated, noisy = (stream[keep] for stream in three)
        if rotated.shape[-1] > dense.shape[-1]:
            return Missing(argument="a stream of the original width", reason=f"{site.name} has {rotated.shape[-1]}")
        plain = dense
        if architecture.norm == "layernorm":
            dense, noisy = centred(dense), centred(noisy)
            if isinstance(subject.after.get_submodule(site.norm), torch.nn.LayerNorm):
                rotated = centred(rotated)
        allowed = floor_allowance(
            dtype, dense.shape[-1], lambda _, a=noisy, b=dense: gram_error(a, b), rotations=2 * site.index + 2
        )
        energy = ((rotated @ rotated.T).norm() / (dense @ dense.T).norm()).item()
        rivals = [Distance(name="zeros", error=energy, separation=1.0)]
        if (separation := gram_error(plain, dense)) > 2 * allowed.value:
            rivals.append(
                Distance(
                    name="a rotation of the stream with its mean left in",
                    error=gram_error(rotated, plain),
                    separation=separation,
                )
            )
        findings.append(
            Measurement(
                claim=Distance(name="a rotation of the original stream", error=gram_error(rotated, dense)),
                rivals=tuple(rivals),
                allowed=allowed,
                verb="has",
                place=describe_site(site, found),
                witness=f"Gram matrix of {len(dense)} tokens, {dtype_name(dtype)}{described(keep)}",
                hint="the modules named wrote this site; they and the readers before them are in unlike bases",
            )
        )
    return findings


def first_divergence(subject: ModelPair) -> str:
    """Place of the first site that is no rotation of the original's; empty when it cannot be found."""
    if subject.modules is None or subject.architecture is None:
        return ""
    verdict = streams.run(subject)
    if verdict.outcome is Outcome.PASSED:  # its place is then that of the tightest pass
        return "the head, or the readers of the last site: all streams agree"
    return verdict.place if verdict.outcome is Outcome.FAILED else ""
