"""Comparing update rules: protocol, contenders, trials, conclusion."""

from research.comparison._compare import compare as compare
from research.comparison._compare import compute_share as compute_share
from research.comparison._compare import make_workloads as make_workloads
from research.comparison._compare import measure_pairs as measure_pairs
from research.comparison._compare import plan as plan
from research.comparison._contenders import Contender as Contender
from research.comparison._contenders import check_contender as check_contender
from research.comparison._contenders import contenders as contenders
from research.comparison.answers import HALF as HALF
from research.comparison.archive import read_study as read_study
from research.comparison.command import digest_files as digest_files
from research.comparison.command import parse_command as parse_command
from research.comparison.conclusion import conclude as conclude
from research.comparison.conclusion import leader as leader
from research.comparison.pairs import measure_pair as measure_pair
from research.comparison.pairs import sampler_of as sampler_of
from research.comparison.pairs import scores_of as scores_of
from research.comparison.protocol import Protocol as Protocol
from research.comparison.protocol import make_protocol as make_protocol
from research.comparison.study import Study as Study
