"""The residual stream of each supported architecture, as data.

An architecture is added by one module with an :class:`Architecture` and one entry below.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from rotcheck.models.architecture import Architecture, Branch, Call, Site, architecture_of, sites
from rotcheck.models.opt import OPT

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType({"opt": OPT})

__all__ = ["ARCHITECTURES", "Architecture", "Branch", "Call", "Site", "architecture_of", "sites"]
