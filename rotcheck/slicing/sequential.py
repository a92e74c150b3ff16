"""SliceGPT's calibration: each site's basis from the signal that the sliced sites before it produce."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from rotcheck.bases.pca import principal_basis
from rotcheck.errors import RotcheckError
from rotcheck.models.declared import architecture_of
from rotcheck.models.sites import sites
from rotcheck.slicing.batches import Batch, checked, kept
from rotcheck.slicing.calibrate import Calibration, MomentSums, Statistic, check_statistic, finite_signal
from rotcheck.slicing.grouping import Grouping, parse
from rotcheck.slicing.plan import Orientation, Plan, orient
from rotcheck.slicing.rotate import fuse
from rotcheck.slicing.schedule import Schedule
from rotcheck.slicing.walk import stages


def sequential_plan(
    model: PreTrainedModel,
    batches: Iterable[Batch],
    schedule: Schedule,
    *,
    grouping: str | Grouping = "per-layer",
    statistic: Statistic = "raw",
    orientation: Orientation = "pca",
    seed: int = 0,
    progress: bool = False,
) -> tuple[Plan, Calibration]:
    """Per-layer plan whose bases follow the sliced signals, in original coordinates.

    All batches are brought to a site; its basis is the PCA of what arrives, and the stream goes on as
    ``x @ U_w @ U_w.T``. Source: SliceGPT, arXiv:2401.15024, section 3.3 and algorithm 1.

    Parameters
    ----------
    model
        Stock model; a fused copy of it is run, in its dtype and eval mode.
    batches
        As for :func:`rotcheck.slicing.calibrate.calibrate`. The stream of every batch is held, (tokens, d) in
        the model's dtype, and each batch runs through the model once.
    schedule
        Widths.
    grouping
        Only ``"per-layer"``.
    statistic, orientation, seed
        As for :func:`rotcheck.slicing.plan.make_plan`. The orientation does not change the signals.
    progress
        Show a bar on stderr, if that is a terminal.

    Returns
    -------
    plan : Plan
    calibration : Calibration
        Moments of the signals that were used.

    Raises
    ------
    RotcheckError
        Another grouping: a shared basis would need signals of sites that it has not sliced yet. Otherwise as
        :func:`rotcheck.slicing.calibrate.calibrate`.
    """
    shared = parse(grouping) if isinstance(grouping, str) else grouping
    if shared.kind != "per-layer":
        raise RotcheckError(
            f"sequential_plan: grouping {shared} shares a basis among sites, but later signals exist only once the "
            "earlier sites are sliced with it; use calibrate and make_plan, or per-layer"
        )
    source = check_statistic(statistic)
    found = sites(architecture_of(model), model.config)
    widths = schedule.widths(model.config.hidden_size, len(found))
    fused = fuse(model)
    sums = MomentSums(found, model.config.hidden_size, (source,))
    bases: list[Tensor] = []
    with torch.no_grad():
        walks, tokens, streams = [], [], []
        for number, batch in enumerate(checked(batches, model.config, progress=False, title="")):
            walks.append(stages(fused, batch, number))
            tokens.append(kept(batch).to(fused.device))
            streams.append(next(walks[-1]))
        for site in tqdm(found, desc="calibrating", disable=None if progress else True, leave=False):
            for number, (stream, counted) in enumerate(zip(streams, tokens, strict=True)):
                sums.add(site.index, finite_signal(stream, counted, site, number))
            moment = sums.sums[source][site.index]
            if not sums.tokens[0] or moment is None:
                break
            bases.append(principal_basis(moment)[0])
            if site is found[-1]:
                break
            kept_axes = bases[-1][:, : widths[site.index]]
            for number, (stream, steps) in enumerate(zip(streams, walks, strict=True)):
                streams[number] = steps.send(_project(stream, kept_axes))
    calibration = sums.calibration()
    groups = tuple(range(len(found)))
    oriented = orient(tuple(basis.cpu() for basis in bases), groups, widths, orientation=orientation, seed=seed)
    name = f"per-layer sequential {statistic} {orientation}"
    return Plan(bases=oriented, site_basis=groups, widths=widths, name=name), calibration


def _project(stream: Tensor, basis: Tensor) -> Tensor:
    if basis.shape[1] == stream.shape[-1]:
        return stream
    return (stream.to(torch.float64) @ basis @ basis.T).to(stream.dtype)
