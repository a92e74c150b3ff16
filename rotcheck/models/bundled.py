"""Where the bundled tiny OPT and its texts are: inside an installed wheel, or beside an editable install."""

from __future__ import annotations

from pathlib import Path

import rotcheck
from rotcheck.errors import RotcheckError


def fixtures_directory() -> Path:
    """The directory with ``tiny-opt/`` and ``text/``.

    A wheel carries it as ``rotcheck/_fixtures``. In an editable install that copy does not exist, because a
    build hook's forced includes are not linked, and ``fixtures/`` beside the package is used.

    Raises
    ------
    RotcheckError
        When neither exists: the package was copied without its data.
    """
    package = Path(rotcheck.__file__).resolve().parent
    for candidate in (package / "_fixtures", package.parent / "fixtures"):
        if (candidate / "tiny-opt" / "config.json").is_file():
            return candidate
    raise RotcheckError(f"the bundled model is missing beside {package}: install rotcheck again with pip")


def model_directory() -> Path:
    """The trained tiny OPT: config, safetensors, tokenizer."""
    return fixtures_directory() / "tiny-opt"


def calibration_text() -> Path:
    """WikiText-2 validation text for calibration (CC BY-SA 3.0; see ATTRIBUTION.md beside it)."""
    return fixtures_directory() / "text" / "calibration.txt"


def evaluation_text() -> Path:
    """WikiText-2 test text for perplexity (CC BY-SA 3.0; see ATTRIBUTION.md beside it)."""
    return fixtures_directory() / "text" / "evaluation.txt"
