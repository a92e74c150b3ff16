"""Occupancy tells a codebook that fits its data from one that does not."""

from __future__ import annotations

import torch

from rotcheck.quantize import LevelQuantizer, fit_levels, uniform_bits
from rotcheck.quantize.codebooks import occupancy


def test_by_counting(rows):
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 9, (3, 7), generator=generator)
    codes = (torch.rand(3, 19, 7, generator=generator) * 2 ** bits.unsqueeze(1)).long()
    found = occupancy(codes, bits)
    assert found.shape == (3, 7)
    for head in range(3):
        for i in range(7):
            assert found[head, i] == codes[head, :, i].unique().numel() / 2 ** int(bits[head, i])


def test_a_fitted_table_uses_every_level(bank):
    quantizer = fit_levels(bank, [uniform_bits(11, 33)] * 3, "coordinate")
    assert (occupancy(quantizer.codes(bank), quantizer.bits) == 1).all()


def test_a_table_for_larger_data_uses_its_inner_levels(rows):
    """A table scaled by raw eigenvalues, for vectors that are then normalised: two of eight levels."""
    bank = rows("spiked")
    fitted = fit_levels(20 * bank, [uniform_bits(11, 33)] * 3, "gaussian")
    assert (occupancy(fitted.codes(bank), fitted.bits) <= 0.25).all()


def test_a_table_for_smaller_data_uses_its_outer_levels(rows):
    bank = rows("spiked")
    fitted = fit_levels(1e-6 * bank, [uniform_bits(11, 33)] * 3, "gaussian")
    assert (occupancy(fitted.codes(bank), fitted.bits) == 0.25).all()


def test_a_coordinate_without_bits_is_fully_used():
    levels = torch.tensor([[[0.0, torch.inf], [-1.0, 1.0]]], dtype=torch.float64)
    quantizer = LevelQuantizer(bits=torch.tensor([[0, 1]]), levels=levels)
    codes = quantizer.codes(torch.tensor([[[5.0, 2.0], [-5.0, 3.0]]], dtype=torch.float64))
    assert occupancy(codes, quantizer.bits).tolist() == [[1.0, 0.5]]


def test_no_rows_use_nothing():
    assert occupancy(torch.zeros(2, 0, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.long)).eq(0).all()
