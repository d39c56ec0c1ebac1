"""Search spaces, learning rates, regimes of descent, and timing."""

from research.tuning._interleaved_timing import interleaved_timing as interleaved_timing
from research.tuning._measure import Measured as Measured
from research.tuning._measure import measure as measure
from research.tuning.rates import ANY_LADDER as ANY_LADDER
from research.tuning.rates import MAX_WIDENINGS as MAX_WIDENINGS
from research.tuning.rates import Choice as Choice
from research.tuning.rates import choose_rate as choose_rate
from research.tuning.regimes import Regime as Regime
from research.tuning.regimes import practice_regimes as practice_regimes
from research.tuning.regimes import theory_regimes as theory_regimes
from research.tuning.spaces import NOT_COMPARED as NOT_COMPARED
from research.tuning.spaces import SPACES as SPACES
from research.tuning.spaces import Range as Range
from research.tuning.spaces import check_space as check_space
from research.tuning.spaces import parse_range as parse_range
from research.tuning.spaces import parse_spaces as parse_spaces
from research.tuning.spaces import range_text as range_text
from research.tuning.timing import Timing as Timing
from research.tuning.timing import TrainingAlone as TrainingAlone
from research.tuning.timing import compile_alone as compile_alone
from research.tuning.timing import time_alone as time_alone
