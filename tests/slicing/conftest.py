"""Measures that several properties share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def logit_error():
    """``max |a - b| / max |b|`` over the tokens that are not padding."""

    def error(logits, expected, batch):
        keep = batch["attention_mask"].bool()
        difference = (logits.double() - expected.double())[keep].abs().max()
        return (difference / expected.double()[keep].abs().max()).item()

    return error


@pytest.fixture(scope="session")
def logits_of():
    def logits(model, batch):
        with torch.no_grad():
            return model(**batch).logits

    return logits
