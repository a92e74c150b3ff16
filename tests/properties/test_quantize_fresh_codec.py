"""The bytes of a row and the tables, stored as they are counted, are all that reconstruction takes."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.quantize import CODEBOOKS, Codec, LevelQuantizer, MinMaxQuantizer, Sketch, fit_levels, two_regimes
from rotcheck.quantize.minmax import regime_ranges
from rotcheck.quantize.sketch import gaussian_sketch
from rotcheck.strategies import seeds


def stored(codec):
    """Everything that the codec is made of, as arrays: tables in float32, bits and groups in one byte."""
    arrays = {"bits": codec.scalar.bits.to(torch.uint8).numpy(), "normalize": codec.normalize}
    if isinstance(codec.scalar, LevelQuantizer):
        arrays["table"] = codec.scalar.levels[codec.scalar.levels.isfinite()].to(torch.float32).numpy()
    else:
        arrays["group"] = codec.scalar.group.to(torch.uint8).numpy()
        arrays["table"] = codec.scalar.centre[codec.scalar.bits == 0].to(torch.float32).numpy()
    if codec.sketch is not None:
        arrays["projections"] = codec.sketch.projections.to(torch.float32).numpy()
    return arrays


def rebuilt(arrays):
    bits = torch.from_numpy(arrays["bits"]).long()
    table = torch.from_numpy(arrays["table"])
    if "group" in arrays:
        centre = torch.zeros(bits.shape).masked_scatter_(bits == 0, table)
        scalar = MinMaxQuantizer(bits=bits, group=torch.from_numpy(arrays["group"]).long(), centre=centre)
    else:
        size = 2 ** int(bits.max())
        levels = torch.full((*bits.shape, size), torch.inf)
        levels = levels.masked_scatter_(torch.arange(size) < (2**bits).unsqueeze(-1), table)
        scalar = LevelQuantizer(bits=bits, levels=levels)
    sketch = Sketch(projections=torch.from_numpy(arrays["projections"])) if "projections" in arrays else None
    return Codec(scalar=scalar, normalize=arrays["normalize"], sketch=sketch)


@settings(deadline=None, max_examples=40)
@given(
    scalar=st.sampled_from([*CODEBOOKS, "min-max"]),
    normalize=st.booleans(),
    signs=st.sampled_from([0, 8]),
    average=st.sampled_from([0.7, 2.5]),
    d=st.integers(3, 13),
    seed=seeds(),
)
def test_a_fresh_codec_decodes_the_same(scalar, normalize, signs, average, d, seed):
    rows = torch.randn(2, 31, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.3
    fitted = rows / rows.norm(dim=-1, keepdim=True) if normalize else rows
    given = [two_regimes(head.var(0).tolist(), d // 2, round(average * d)) for head in fitted]
    tables = regime_ranges(given, fitted.mean(1)) if scalar == "min-max" else fit_levels(fitted, given, scalar)
    codec = Codec(scalar=tables, normalize=normalize, sketch=gaussian_sketch(2, signs, d, seed=3) if signs else None)
    written = codec.encode(rows)
    arrays = stored(codec)
    fresh = rebuilt(arrays)
    assert torch.equal(fresh.decode(torch.from_numpy(np.frombuffer(written.numpy().tobytes(), np.uint8).copy())
                                    .reshape(written.shape)), codec.decode(written))  # fmt: skip
    assert torch.equal(fresh.encode(rows), written)

    # counted as stored
    tables_stored = arrays["table"].nbytes + (arrays["projections"].nbytes if signs else 0)
    assert codec.table_bytes == fresh.table_bytes == tables_stored
    assert written.numpy().nbytes == 2 * 31 * codec.bytes
    codes = -(-int(codec.bits.sum(1).max()) // 8)
    assert codec.bytes == codes + codec.side_bytes
