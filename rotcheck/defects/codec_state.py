"""What happens around the code: state, other rows, side information, settings, files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rotcheck.defects._codecs import Path, Recipe, fit, ranges, rows, subject, tables, unit_tables
from rotcheck.defects.defect import Defect
from rotcheck.quantize.packing import pack_halves, unpack_halves
from rotcheck.subjects.codec import Codec

UNIT = Recipe(normalize=True, codebook="gaussian")


class _Remembering:
    """A coder of unit rows that keeps their lengths to itself, and decodes with those that it saw last."""

    def __init__(self, coder: Any) -> None:
        self.coder, self.lengths = coder, torch.zeros(0)

    @property
    def bytes(self) -> int:
        return self.coder.scalar.bytes  # type: ignore[no-any-return]

    def encode(self, y: Tensor) -> Tensor:
        self.lengths = y.norm(dim=-1, keepdim=True)
        return self.coder.scalar.encode(y / self.lengths)  # type: ignore[no-any-return]

    def decode(self, payload: Tensor) -> Tensor:
        return self.coder.scalar.decode(payload) * self.lengths  # type: ignore[no-any-return]


class _FirstState(_Remembering):
    """The length of the first row serves all, as ``states[0]`` of a batch."""

    def encode(self, y: Tensor) -> Tensor:
        codes = super().encode(y)
        self.lengths = self.lengths[..., :1, :]
        return codes


class _BatchRange:
    """Rows coded between the extremes of each coordinate over the batch at hand."""

    def __init__(self, coder: Any) -> None:
        self.coder = coder

    @property
    def bytes(self) -> int:
        return self.coder.bytes  # type: ignore[no-any-return]

    def encode(self, y: Tensor) -> Tensor:
        self.low, self.high = y.amin(-2, keepdim=True), y.amax(-2, keepdim=True)
        steps = 2 ** self.coder.bits.unsqueeze(-2) - 1
        codes = ((y - self.low) / (self.high - self.low).clamp(min=1e-12) * steps).round()
        self.steps = steps
        return codes.to(torch.uint8)

    def decode(self, payload: Tensor) -> Tensor:
        return self.low + payload.double() / self.steps * (self.high - self.low)


def _wrapped(recipe: Recipe, coder: Callable[[Any], Any], name: str):  # type: ignore[no-untyped-def]
    def plant(seed: int) -> Codec:
        return subject(seed, replace(recipe, wrap=coder), name=name)

    return plant


@dataclass(frozen=True, kw_only=True, eq=False)
class _RowDeviation:
    """Uniform steps over 3 deviations of each regime of each row; the deviation is in the payload.

    ``correction`` 1 is the deviation of a sample, which one coordinate does not have.
    """

    bits: int
    split: int
    correction: int

    def parts(self, y: Tensor) -> list[Tensor]:
        return [part for part in (y[:, : self.split], y[:, self.split :]) if part.shape[1] or self.correction]

    def encode(self, y: Tensor) -> Tensor:
        coded = []
        for part in self.parts(y):
            about = part - part.mean(-1, keepdim=True) if self.correction else part
            size = about.square().sum(-1, keepdim=True) / (part.shape[1] - self.correction)
            reach = 3 * unpack_halves(pack_halves(size.sqrt().nan_to_num(), "a deviation"))
            reach = torch.where(size.isnan(), torch.nan, reach)
            steps = 2**self.bits - 1
            codes = ((part / reach).clamp(-1, 1) * steps / 2 + steps / 2).round()
            coded.append((codes - steps / 2) * 2 / steps * reach)
        return torch.cat(coded, dim=-1)


def _row_deviation(correction: int):  # type: ignore[no-untyped-def]
    def plant(seed: int) -> Codec:
        samples = rows(seed)
        basis = fit(samples, Recipe()).basis

        def split(k: int):  # type: ignore[no-untyped-def]
            code = _RowDeviation(bits=4, split=k, correction=correction)
            return lambda x: code.encode(x @ basis) @ basis.T

        return Codec(split(5), samples=samples, split=split, name=f"deviations, correction {correction}")

    return plant


def _bits_only_reported(seed: int) -> Codec:
    right = tables(seed)
    reported = 6
    return replace(
        right,
        make=lambda bits: right.round_trip,
        bits=reported,
        bytes_per_row=reported * right.width / 8,
        split=None,
        name="bits only reported",
    )


def _ranges_not_counted(seed: int) -> Codec:
    right = ranges(seed)
    return replace(right, bytes_per_row=sum(right.bits) / 8, name="ranges not counted")


def _never_fires(seed: int) -> Codec:
    samples = rows(seed)
    return Codec(lambda x: x.clone(), samples=samples, calls=lambda: 0, name="hook that never fires")


def _fires(seed: int) -> Codec:
    path = fit(rows(seed), Recipe())
    calls = [0]

    def round_trip(x: Tensor) -> Tensor:
        calls[0] += 1
        return path.round_trip(x)

    return Codec(round_trip, samples=rows(seed), calls=lambda: calls[0], name="hook that fires")


def _original_kept(seed: int) -> Codec:
    right = tables(seed)

    def round_trip(x: Tensor) -> Tensor:
        right.round_trip(x)
        return x.clone()

    return Codec(round_trip, samples=right.samples, name="original kept")


def _saved(path: Path) -> dict[str, Tensor]:
    return {"basis": path.basis.clone(), "mean": path.mean.clone()}


def _reloaded(load: Callable[[Path, dict[str, Tensor]], Path], name: str):  # type: ignore[no-untyped-def]
    def plant(seed: int) -> Codec:
        path = fit(rows(seed), UNIT)
        return subject(seed, UNIT, reload=lambda: load(path, _saved(path)).round_trip, name=name)

    return plant


def _cached_calibration(seed: int) -> Codec:
    right = tables(seed)
    return replace(right, calibrate=lambda x: right.round_trip, name="calibration cached")


def _drawn_in_the_call(seed: int) -> Codec:
    generator = torch.Generator().manual_seed(seed)
    right = tables(seed)

    def round_trip(x: Tensor) -> Tensor:
        spread = (right.round_trip(x) - x).std()
        noise = spread * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        return right.round_trip(x + noise) - noise

    return Codec(round_trip, samples=right.samples, name="dither drawn in the call")


DEFECTS = (
    Defect(
        name="lengths_of_the_last_encode",
        kind="Codec",
        issue="Dynamis-Labs/spectralquant, phases 2 and 3: per-vector deviations beside the codes",
        summary="decoding takes the lengths of the rows that were encoded last, not those of the payload",
        plant=_wrapped(UNIT, _Remembering, "lengths of the last encode"),
        killed_by=("honest_bytes",),
        twin=unit_tables,
    ),
    Defect(
        name="state_of_the_first_row",
        kind="Codec",
        issue="kruschdev/SpectralQuant-Ollama-Bridge, spectralquant_cache.py: states[0]",
        summary="the length of the first row is used for all",
        plant=_wrapped(UNIT, _FirstState, "state of the first row"),
        killed_by=("batch_invariance", "precision_limit"),
        twin=unit_tables,
    ),
    Defect(
        name="ranges_of_the_batch",
        kind="Codec",
        issue="jundot/omlx#2172",
        summary="extremes are taken over the rows at hand, and kept in the object",
        plant=_wrapped(Recipe(), _BatchRange, "ranges of the batch"),
        killed_by=("batch_invariance", "honest_bytes"),
        twin=tables,
    ),
    Defect(
        name="dither_drawn_in_the_call",
        kind="Codec",
        issue="thu-nics/ViDiT-Q#22",
        summary="random numbers are drawn in the call",
        plant=_drawn_in_the_call,
        killed_by=("batch_invariance",),
        twin=tables,
    ),
    Defect(
        name="bits_only_reported",
        kind="Codec",
        issue="Dynamis-Labs/spectralquant, compress(avg_bits=6)",
        summary="the report says 6 bits, the codes have 3, and no setting changes them",
        plant=_bits_only_reported,
        killed_by=("honest_bytes", "rate_distortion", "non_vacuity", "precision_limit", "codebook_scale"),
        twin=tables,
    ),
    Defect(
        name="ranges_not_counted",
        kind="Codec",
        issue="TheTom/turboquant_plus#53",
        summary="the reported bytes hold the codes, and not the ranges of each row",
        plant=_ranges_not_counted,
        killed_by=("honest_bytes",),
        twin=ranges,
    ),
    Defect(
        name="hook_never_fires",
        kind="Codec",
        issue="Dynamis-Labs/spectralquant, run_v3_ppl_niah_v2: hooks wait for 3-tuples",
        summary="the compression is registered and never called",
        plant=_never_fires,
        killed_by=("non_vacuity",),
        twin=_fires,
    ),
    Defect(
        name="original_kept",
        kind="Codec",
        issue="Dynamis-Labs/spectralquant, run_v3_perplexity_crossarch: keys and values left in float16",
        summary="rows are compressed, and the original is what is returned",
        plant=_original_kept,
        killed_by=("non_vacuity",),
        twin=_fires,
    ),
    Defect(
        name="deviation_of_one_element",
        kind="Codec",
        issue="Dynamis-Labs/spectralquant, phase 2: _uniform_quantize",
        summary="the sample deviation of one coordinate is not a number",
        plant=_row_deviation(1),
        killed_by=("degenerate_splits",),
        twin=_row_deviation(0),
    ),
    Defect(
        name="keys_of_another_file",
        kind="Codec",
        issue="Dynamis-Labs/spectralquant, from_calibration: KeyError 'eigenvectors'",
        summary="loading looks for names that saving does not write",
        plant=_reloaded(lambda path, saved: replace(path, basis=saved["eigenvectors"]), "keys of another file"),
        killed_by=("saved_operator",),
        twin=_reloaded(lambda path, saved: replace(path, basis=saved["basis"]), "keys of its own file"),
    ),
    Defect(
        name="transposed_by_loading",
        kind="Codec",
        issue="NVIDIA/Model-Optimizer#1143",
        summary="the basis is stored in rows and read as columns",
        plant=_reloaded(lambda path, saved: replace(path, basis=saved["basis"].T), "transposed by loading"),
        killed_by=("saved_operator",),
        twin=_reloaded(lambda path, saved: replace(path, basis=saved["basis"]), "loaded as it was saved"),
    ),
    Defect(
        name="calibration_cached",
        kind="Codec",
        issue="class B20 (calibration in another basis)",
        summary="calibrating again returns the code of the first rows",
        plant=_cached_calibration,
        killed_by=("scale_equivariance",),
        twin=tables,
    ),
)
