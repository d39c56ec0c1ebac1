"""Comparing trainings: which rate, on which seeds, and how sure the outcome is."""

from research.studies.intervals import median_interval as median_interval
from research.studies.measure import Measured as Measured
from research.studies.measure import measure as measure
from research.studies.rates import ANY_LADDER as ANY_LADDER
from research.studies.rates import LADDERS as LADDERS
from research.studies.rates import MAX_WIDENINGS as MAX_WIDENINGS
from research.studies.rates import Choice as Choice
from research.studies.rates import choose_rate as choose_rate
from research.studies.rates import digits_gained as digits_gained
from research.studies.rates import first_reached as first_reached
from research.studies.regime_tables import regime_tables as regime_tables
from research.studies.regimes import Regime as Regime
from research.studies.regimes import practice_regimes as practice_regimes
from research.studies.regimes import theory_regimes as theory_regimes
from research.studies.timing import Timing as Timing
from research.studies.timing import time_alone as time_alone
