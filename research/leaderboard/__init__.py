"""Many studies on one page that opens offline: which rule leads where."""

from research.leaderboard.page import tables as tables
from research.leaderboard.page import write_leaderboard as write_leaderboard
