from rotcheck.checking import Measurement as Measurement
from rotcheck.checking import check as check
from rotcheck.convention import Convention as Convention
from rotcheck.convention import Formula as Formula
from rotcheck.errors import RotcheckError as RotcheckError
from rotcheck.outcome import CheckFailed as CheckFailed
from rotcheck.outcome import Outcome as Outcome
from rotcheck.outcome import Verdict as Verdict
from rotcheck.report import Report as Report
from rotcheck.runner import assert_verified as assert_verified
from rotcheck.runner import parametrize_with_checks as parametrize_with_checks
from rotcheck.runner import verify as verify
from rotcheck.subjects import CacheRotation as CacheRotation
from rotcheck.subjects import ModelPair as ModelPair
from rotcheck.subjects import Rotation as Rotation
from rotcheck.subjects import SlicedModel as SlicedModel
from rotcheck.tolerance import Tolerance as Tolerance
from rotcheck.witness import Witness as Witness

__version__: str
__all__: list[str]
