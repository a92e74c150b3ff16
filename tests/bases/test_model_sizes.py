"""Every width that the models need a Hadamard matrix of: residual stream, feed-forward layers and experts, heads."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rotcheck.bases import base_order, hadamard, hadamard_factors
from rotcheck.bases.hadamard import base_matrix
from rotcheck.errors import RotcheckError

# hidden size, sizes of feed-forward layers and experts, size of a head
WIDTHS = {
    "OPT-125M": (768, (3072,), 64),
    "OPT-350M": (1024, (4096,), 64),
    "OPT-350M embedding": (512, (4096,), 64),
    "OPT-1.3B": (2048, (8192,), 64),
    "OPT-2.7B": (2560, (10240,), 80),
    "OPT-6.7B": (4096, (16384,), 128),
    "OPT-13B": (5120, (20480,), 128),
    "OPT-30B": (7168, (28672,), 128),
    "OPT-66B": (9216, (36864,), 128),
    "LLaMA-1-7B, LLaMA-2-7B": (4096, (11008,), 128),
    "LLaMA-1-13B, LLaMA-2-13B": (5120, (13824,), 128),
    "LLaMA-1-30B": (6656, (17920,), 128),
    "LLaMA-1-65B": (8192, (22016,), 128),
    "LLaMA-2-70B, LLaMA-3-70B": (8192, (28672,), 128),
    "LLaMA-3-8B, Mistral-7B, Mixtral-8x7B": (4096, (14336,), 128),
    "LLaMA-3.1-405B": (16384, (53248,), 128),
    "LLaMA-3.2-1B": (2048, (8192,), 64),
    "LLaMA-3.2-3B": (3072, (8192,), 128),
    "OpenLLaMA-3B": (3200, (8640,), 100),
    "Mixtral-8x22B": (6144, (16384,), 128),
    "Phi-2": (2560, (10240,), 80),
    "Phi-3-mini": (3072, (8192,), 96),
    "Phi-3-medium": (5120, (17920,), 128),
    "Qwen1.5-MoE-A2.7B": (2048, (1408, 5632), 128),
    "Qwen2-0.5B": (896, (4864,), 64),
    "Qwen2-1.5B": (1536, (8960,), 128),
    "Qwen2.5-3B": (2048, (11008,), 128),
    "Qwen2-7B": (3584, (18944,), 128),
    "Qwen2-57B-A14B": (3584, (2560, 20480), 128),
    "Qwen2.5-14B": (5120, (13824,), 128),
    "Qwen2.5-32B": (5120, (27648,), 128),
    "Qwen2-72B": (8192, (29568,), 128),
    "Qwen3-0.6B": (1024, (3072,), 128),
    "Qwen3-1.7B": (2048, (6144,), 128),
    "Qwen3-4B": (2560, (9728,), 128),
    "Qwen3-8B": (4096, (12288,), 128),
    "Qwen3-14B": (5120, (17408,), 128),
    "Qwen3-32B": (5120, (25600,), 128),
    "Qwen3-30B-A3B": (2048, (768, 6144), 128),
    "Qwen3-235B-A22B": (4096, (1536, 12288), 128),
    "Gemma-2B": (2048, (16384,), 256),
    "Gemma-7B": (3072, (24576,), 256),
    "Gemma-2-2B": (2304, (9216,), 256),
    "Gemma-2-9B": (3584, (14336,), 256),
    "Gemma-2-27B": (4608, (36864,), 128),
    "Gemma-3-1B": (1152, (6912,), 256),
    "Gemma-3-4B": (2560, (10240,), 256),
    "Gemma-3-12B": (3840, (15360,), 256),
    "Gemma-3-27B": (5376, (21504,), 128),
}

ORDERS = {
    1: (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384),
    12: (96, 768, 1536, 3072, 6144, 12288, 24576),
    20: (80, 2560, 5120, 10240, 20480),
    28: (896, 3584, 7168, 14336, 28672),
    36: (1152, 2304, 4608, 9216, 36864),
    44: (1408, 5632),
    60: (3840, 15360),
    68: (17408,),
    76: (4864, 9728),
    84: (5376, 21504),
    100: (100,),
    104: (6656, 53248),
    108: (6912, 13824, 27648),
    140: (8960, 17920),
    148: (18944,),
    200: (3200, 25600),
    344: (11008, 22016),
    540: (8640,),
    924: (29568,),
}
"""Every size of `WIDTHS` under the order of its base matrix."""

REFUSED = {13696: "Qwen1.5-14B and GLM-4-9B, 428 * 32", 27392: "Qwen1.5-32B, 428 * 64"}


def test_the_sizes_are_those_of_the_models():
    needed = {size for hidden, inner, head in WIDTHS.values() for size in (hidden, *inner, head)}
    assert sorted(size for sizes in ORDERS.values() for size in sizes) == sorted(needed)


@pytest.mark.parametrize("order", ORDERS)
def test_every_size_has_its_base_order(order):
    assert {size: base_order(size) for size in ORDERS[order]} == dict.fromkeys(ORDERS[order], order)


@pytest.mark.parametrize("order", ORDERS)
def test_every_base_matrix_is_hadamard_in_integers(order):
    """``B @ B.T = B.T @ B = b I``: float64 holds these sums exactly. Sylvester's part is scipy's."""
    matrix = base_matrix(order)
    assert matrix.shape == (order, order)
    assert set(np.unique(matrix)) <= {-1, 1}
    exact = matrix.astype(np.float64)
    assert np.array_equal(exact @ exact.T, order * np.eye(order))
    assert np.array_equal(exact.T @ exact, order * np.eye(order))


@pytest.mark.parametrize("n", sorted(size for sizes in ORDERS.values() for size in sizes if size <= 1024))
def test_small_sizes_are_hadamard_themselves(n):
    matrix = (hadamard(n) * math.sqrt(n)).round()
    assert torch.equal(matrix / math.sqrt(n), hadamard(n))
    assert torch.equal(matrix @ matrix.T, n * torch.eye(n, dtype=torch.float64))


@pytest.mark.parametrize("n", sorted(size for sizes in ORDERS.values() for size in sizes))
def test_every_size_is_applied_in_factors(n):
    """In fewer than ``n * 1000`` products a row; ``ones @ U = sqrt(n) e_0``, and entries have one size."""
    rotation = hadamard_factors(n)
    assert rotation.size == n
    assert sum(rotation.sizes) < 1000
    rows = torch.stack([torch.ones(n), torch.nn.functional.one_hot(torch.tensor(n - 1), n)]).double()
    ones, last = rotation.rotate(rows)
    assert ones[0].item() == pytest.approx(math.sqrt(n), rel=1e-13)
    assert ones[1:].abs().max() < 1e-10
    assert torch.allclose(last.abs(), torch.full_like(last, 1 / math.sqrt(n)), rtol=1e-13)


@pytest.mark.parametrize("n", REFUSED)
def test_widths_that_are_still_refused(n):
    """428 is Williamson's: 427 = 7 * 61 and 213 = 3 * 71 are no powers of primes. Blocks of 128 are what is left."""
    with pytest.raises(RotcheckError, match=rf"^hadamard: n is {n}, which no Sylvester or Paley construction gives"):
        hadamard(n)
    with pytest.raises(RotcheckError, match=rf"n is {n}, .*, or block={n // 107}$"):
        hadamard_factors(n)
    assert hadamard_factors(n, block=n // 107).size == n
