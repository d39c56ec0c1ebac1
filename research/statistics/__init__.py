"""Statistics of runs: costs, intervals, bootstrap, and differences between rules."""

from research.statistics.costs import digits_gained as digits_gained
from research.statistics.costs import expected_running_time as expected_running_time
from research.statistics.costs import first_reached as first_reached
from research.statistics.costs import log_costs as log_costs
from research.statistics.costs import passes_to_target as passes_to_target
from research.statistics.costs import penalised_passes as penalised_passes
from research.statistics.costs import search_scores as search_scores
from research.statistics.differences import Difference as Difference
from research.statistics.differences import difference as difference
from research.statistics.intervals import interval_in_words as interval_in_words
from research.statistics.intervals import mean_interval as mean_interval
from research.statistics.intervals import median_interval as median_interval
from research.statistics.intervals import seeds_in_words as seeds_in_words
from research.statistics.profiles import performance_profile as performance_profile
from research.statistics.scores import Scores as Scores
from research.statistics.scores import choose as choose
from research.statistics.searches import SearchedCost as SearchedCost
from research.statistics.searches import SearchedDifference as SearchedDifference
from research.statistics.searches import searched_cost as searched_cost
from research.statistics.searches import searched_difference as searched_difference
