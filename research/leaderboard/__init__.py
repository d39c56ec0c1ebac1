"""The leaderboard: many studies on one HTML page that opens offline."""

from research.leaderboard.page import tables as tables
from research.leaderboard.page import write_leaderboard as write_leaderboard
