"""The historical paths as `Rotation`, each through the one line that a user of it would write."""

from __future__ import annotations

from torch import Tensor

from rotcheck.subjects.historical import inline
from rotcheck.subjects.historical.affine import AffineRotation
from rotcheck.subjects.historical.calibration import Calibration, calibrate
from rotcheck.subjects.historical.data import HEAD, LAYER, Data
from rotcheck.subjects.historical.engine import Engine
from rotcheck.subjects.historical.lookup import LookupRotation
from rotcheck.subjects.rotation import Rotation


def lookup(data: Data) -> Rotation:
    """A class that takes the layer and the head: its other heads are neighbours."""
    heads = {key: calibrate(rows) for key, rows in data.heads.items()}
    rot = LookupRotation.calibrated(heads)
    return Rotation(
        lambda x: rot.rotate(x, LAYER, HEAD),
        unrotate=lambda y: rot.unrotate(y, LAYER, HEAD),
        neighbours={f"layer {i}, head {j}": h.basis for (i, j), h in heads.items() if (i, j) != (LAYER, HEAD)},
        name="historical lookup",
        **_declared(heads[LAYER, HEAD]),
    )


def affine(data: Data) -> Rotation:
    """A class that subtracts a mean."""
    head = calibrate(data.shifted, centred=True)
    rot = AffineRotation.calibrated(head)
    return Rotation(rot.rotate, unrotate=rot.unrotate, mean=head.mean, name="historical affine path", **_declared(head))


def script_keys(data: Data) -> Rotation:
    """A function of keys and values; what it rotates first reaches its quantiser first."""
    head = calibrate(data.keys)
    return Rotation.from_tap(
        lambda x: inline.compress_decompress(x, data.values[: len(x)], head.basis, head.split),
        inline,
        "quantize_nearest",
        normalizes=True,
        name="historical script, keys",
        **_declared(head),
    )


def script_values(data: Data) -> Rotation:
    """The same function, past the keys: declared is the basis of the values, and that of the keys is a neighbour.

    Both ways round, because the function may transpose whatever it is given.
    """
    key, value = calibrate(data.keys), calibrate(data.values)
    return Rotation.from_tap(
        lambda x: inline.compress_decompress(data.keys[: len(x)], x, key.basis, key.split),
        inline,
        "quantize_nearest",
        skip=1,
        normalizes=True,
        neighbours={"the keys": key.basis, "the keys, transposed": key.basis.T},
        name="historical script, values",
        **_declared(value),
    )


def engine(data: Data) -> Rotation:
    """An object that rotates and quantises in one method, calibrated on unit rows."""
    head = calibrate(data.keys, unit=True)
    path = Engine.calibrated(head)
    return Rotation.from_tap(
        path.compress,
        path,
        "_quantize_regime",
        normalizes=True,
        spectrum=head.eigenvalues,
        name="historical engine",
        **_declared(head),
    )


def _declared(head: Calibration) -> dict[str, Tensor]:
    return {"basis": head.basis, "covariance": head.covariance, "samples": head.rows}
