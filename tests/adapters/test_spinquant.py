"""R.bin reads as the rotations that SpinQuant applies, and only where it is sound."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from rotcheck.adapters import read_rotations
from rotcheck.adapters.spinquant import PRODUCTS, orthogonality_error
from rotcheck.bases import haar
from rotcheck.tolerance import UNIT_ROUNDOFF, Tolerance

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
CONFIG = SimpleNamespace(hidden_size=84, num_hidden_layers=3, num_attention_heads=7, head_dim=None)


def key(layer):
    return f"model.layers.{layer}.self_attn.R2"


def rotations(config=CONFIG, *, seed=0, dtype=torch.float32, width=None):
    generator = torch.Generator().manual_seed(seed)
    width = width or config.hidden_size // config.num_attention_heads
    found = {"R1": haar(config.hidden_size, seed=generator)}
    found |= {key(layer): haar(width, seed=generator) for layer in range(config.num_hidden_layers)}
    return {name: matrix.to(dtype).contiguous() for name, matrix in found.items()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "R.bin"


@given(seed=st.integers(0, 2**20), heads=st.integers(1, 4), width=st.integers(2, 9), layers=st.integers(1, 3))
def test_every_matrix_comes_back(tmp_path_factory, seed, heads, width, layers):
    path = tmp_path_factory.mktemp("saved") / "R.bin"
    config = SimpleNamespace(hidden_size=heads * width, num_hidden_layers=layers, num_attention_heads=heads)
    saved = rotations(config, seed=seed)
    torch.save({name: torch.nn.Parameter(matrix) for name, matrix in saved.items()}, path)
    read = read_rotations(path, config)
    assert read.r1.dtype == torch.float64
    assert torch.equal(read.r1, saved["R1"].double())
    assert len(read.r2) == layers
    assert all(torch.equal(matrix, saved[key(layer)].double()) for layer, matrix in enumerate(read.r2))
    assert len(read.errors) == layers + 1


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_rounded_rotations_are_orthogonal_to_a_few_u(path, dtype):
    torch.save(rotations(dtype=dtype), path)
    read = read_rotations(path, CONFIG)
    assert read.stored == str(dtype).removeprefix("torch.")
    # A Haar matrix that is rounded once has 1.2 u; float64 also has the errors of the QR that made it.
    assert max(read.errors) < (2 if dtype != torch.float64 else 30)
    assert repr(read) == (
        f"SpinQuantRotations(R1 (84, 84), 3 R2 (12, 12), {read.stored}, orthogonal to {max(read.errors):.3g} u)"
    )


def test_safetensors_will_do(path):
    save_file(rotations(), path)
    assert torch.equal(read_rotations(path, CONFIG).r1, rotations()["R1"].double())


def test_the_convention_is_that_of_spinquant(path):
    """Its own arithmetic, on one attention layer: E @ R1 ... R1.T @ W_o, and R2 head by head, with fewer KV heads."""
    torch.save(rotations(dtype=torch.float64), path)
    read = read_rotations(path, CONFIG)
    r1, r2 = read.r1, read.r2[1]
    size, heads, kv, width = 84, 7, 1, 12
    generator = torch.Generator().manual_seed(5)
    x, w_v, w_o = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((9, size), (kv * width, size), (size, heads * width))
    )
    theirs_v = ((w_v @ r1).T.reshape(-1, kv, width) @ r2).reshape(size, kv * width).T
    theirs_o = ((r1.T @ w_o).reshape(-1, heads, width) @ r2).reshape(size, heads * width)
    values = (x @ w_v.T).reshape(9, kv, width).repeat_interleave(heads // kv, dim=1)
    turned = ((x @ r1) @ theirs_v.T).reshape(9, kv, width).repeat_interleave(heads // kv, dim=1)
    assert torch.allclose(turned, values @ r2, atol=1e-12)
    assert torch.allclose(turned.reshape(9, -1) @ theirs_o.T, (values.reshape(9, -1) @ w_o.T) @ r1, atol=1e-11)


@pytest.mark.parametrize("name", ["R1", key(1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("share", "fits"), [(0.5, True), (2.0, False)])
def test_drift_is_measured_against_the_bound(path, refused, name, dtype, share, fits):
    saved = rotations(dtype=torch.float64)
    size = saved[name].shape[0]
    stored = str(dtype).removeprefix("torch.")
    allowed = Tolerance(storage=stored, length=PRODUCTS * size).value
    saved[name][:, 0] *= 1 + share * allowed / 2
    torch.save({k: v.to(dtype) for k, v in saved.items()}, path)
    if fits:
        read = read_rotations(path, CONFIG)
        assert max(read.errors) == pytest.approx(share * allowed / UNIT_ROUNDOFF[stored], rel=0.2)
        return
    refused(
        lambda: read_rotations(path, CONFIG),
        f"{name} is not orthogonal, |U.T U - I|_2 is ",
        f"u of {stored}, allowed {allowed:.2e} = 8 (u_storage + sqrt({4 * size}) u_accumulate), {stored}",
        "torch.linalg.qr",
    )


def test_an_unnormalised_hadamard_matrix_is_refused(path, refused):
    saved = rotations()
    saved["R1"] *= 84**0.5
    torch.save(saved, path)
    refused(lambda: read_rotations(path, CONFIG), "R1 is not orthogonal", "is 8.30e+01")


def test_zeros_are_refused(path, refused):
    torch.save({**rotations(dtype=torch.bfloat16), "R1": torch.zeros(84, 84, dtype=torch.bfloat16)}, path)
    refused(lambda: read_rotations(path, CONFIG), "R1 is not orthogonal", "is 1.00e+00")


def without(name):
    return lambda saved: saved.pop(name)


def replaced(name, tensor):
    return lambda saved: saved.update({name: tensor})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("R1"), "R1 is missing"),
        (without(key(1)), f"{key(1)} is missing; the file is for another model, or SpinQuant would use a Hadamard"),
        (replaced(key(3), torch.eye(12)), f"'{key(3)}' is no rotation of a model with 3 layers"),
        (replaced("R3", torch.eye(12)), "'R3' is no rotation"),
        (replaced("R1", torch.eye(83)), "R1 has shape (83, 83), the config says (84, 84)"),
        (replaced("R1", torch.eye(84)[None]), "R1 has shape (1, 84, 84)"),
        (replaced(key(0), torch.eye(84)), f"{key(0)} has shape (84, 84), the config says (12, 12)"),
        (replaced(key(2), torch.full((12, 12), torch.nan)), f"{key(2)} has NaN"),
        (replaced("R1", torch.full((84, 84), torch.inf)), "R1 has NaN or infinite"),
        (replaced("R1", torch.eye(84).double()), "stored as float32, float64"),
        (replaced("R1", torch.eye(84).long()), "stored as float32, int64"),
    ],
)
def test_files_that_do_not_fit(path, refused, change, says):
    saved = rotations()
    change(saved)
    torch.save(saved, path)
    refused(lambda: read_rotations(path, CONFIG), "R.bin", says)


def test_an_explicit_width_of_heads_counts(path, refused):
    """SpinQuant divides hidden size by heads; where the model's heads have another width, its R2 does not fit."""
    explicit = SimpleNamespace(**{**vars(CONFIG), "head_dim": 15})
    torch.save(rotations(), path)
    refused(lambda: read_rotations(path, explicit), "has shape (12, 12), the config says (15, 15)")
    torch.save(rotations(explicit, width=15), path)
    assert read_rotations(path, explicit).r2[0].shape == (15, 15)


@given(seed=st.integers(0, 2**20), size=st.integers(65, 150), scale=st.floats(1e-9, 1e-1))
def test_the_2_norm_by_iteration_is_that_of_the_eigenvalues(seed, size, scale):
    noise = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    matrix = haar(size, seed=seed) + scale * noise / size
    exact = torch.linalg.eigvalsh(matrix.T @ matrix - torch.eye(size, dtype=torch.float64)).abs().max().item()
    assert 0.9 * exact <= orthogonality_error(matrix) <= exact + 1e-14


def test_code_in_the_file_is_not_run(path, refused):
    created = path.with_name("created")

    class Payload:
        def __reduce__(self):
            return open, (str(created), "w")

    torch.save({**rotations(), "R3": Payload()}, path)
    refused(lambda: read_rotations(path, CONFIG), "not run")
    assert not created.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_files(path, refused, share):
    torch.save(rotations(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(lambda: read_rotations(path, CONFIG), "R.bin: damaged")


def test_paths_that_are_no_files(tmp_path, refused):
    refused(lambda: read_rotations(tmp_path / "R.bin", CONFIG), "R.bin: no such file")
    refused(lambda: read_rotations(tmp_path, CONFIG), "has none of", "pass the checkpoint's file itself")


def test_a_model_is_no_rotations(path, refused, base):
    torch.save(base.state_dict(), path)
    refused(lambda: read_rotations(path, CONFIG), "R1 is missing; pass the R.bin that optimize_rotation.py wrote")
