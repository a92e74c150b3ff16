"""A bank of heads is its heads side by side: no table, range or projection reaches another head."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.quantize import CODEBOOKS, Codec, Sketch, fit_levels, two_regimes
from rotcheck.quantize.minmax import regime_ranges
from rotcheck.quantize.sketch import gaussian_sketch
from rotcheck.strategies import seeds


@settings(deadline=None, max_examples=40)
@given(
    scalar=st.sampled_from([*CODEBOOKS, "min-max"]),
    normalize=st.booleans(),
    heads=st.integers(2, 4),
    d=st.integers(2, 9),
    seed=seeds(),
)
def test_each_head_by_itself(scalar, normalize, heads, d, seed):
    """Heads of other scales and other totals; a shorter row only has zeros behind its codes."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(heads, 43, d, generator=generator, dtype=torch.float64)
    rows = rows * 10.0 ** torch.arange(heads).reshape(-1, 1, 1)
    fitted = rows / rows.norm(dim=-1, keepdim=True) if normalize else rows
    given = [two_regimes(head.var(0).tolist(), 1, (1 + h) * d + 1) for h, head in enumerate(fitted)]
    sketch = gaussian_sketch(heads, 8, d, seed=seed % 2**31)

    def make(chosen):
        part = fitted[chosen]
        some = given[chosen]
        tables = regime_ranges(some, part.mean(1)) if scalar == "min-max" else fit_levels(part, some, scalar)
        return Codec(scalar=tables, normalize=normalize, sketch=Sketch(projections=sketch.projections[chosen]))

    bank = make(slice(None))
    written = bank.encode(rows)
    together = bank.decode(written)
    for head in range(heads):
        chosen = slice(head, head + 1)
        alone = make(chosen)
        single = alone.decode(alone.encode(rows[chosen]))
        # products with the projections may add up in another order
        limit = 8 * 2**-52 * rows[head].norm(dim=-1).max() * sketch.projections.abs().max()
        assert (single[0] - together[head]).abs().max() <= limit
        used = alone.scalar.layout.bytes
        assert torch.equal(alone.encode(rows[chosen])[0, :, :used], written[head, :, :used])
        assert not written[head, :, used : bank.scalar.layout.bytes].any()
