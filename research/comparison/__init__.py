"""Comparing update rules: protocol, contenders, trials, conclusion."""

from research.comparison._compare import compare as compare
from research.comparison._compare import compute_share as compute_share
from research.comparison._compare import plan as plan
from research.comparison.archive import Study as Study
from research.comparison.archive import read_study as read_study
from research.comparison.checking import check_contender as check_contender
from research.comparison.checking import make_workloads as make_workloads
from research.comparison.checking import sampler_of as sampler_of
from research.comparison.command import digest_files as digest_files
from research.comparison.command import name_rules as name_rules
from research.comparison.command import parse_command as parse_command
from research.comparison.command import parse_evaluations as parse_evaluations
from research.comparison.conclusion import conclude as conclude
from research.comparison.conclusion import leader as leader
from research.comparison.contenders import Contender as Contender
from research.comparison.contenders import make_contenders as make_contenders
from research.comparison.measurements import logs_of as logs_of
from research.comparison.networks import NetworkStudy as NetworkStudy
from research.comparison.networks import compare_networks as compare_networks
from research.comparison.networks import (
    compute_network_share as compute_network_share,
)
from research.comparison.protocol import Protocol as Protocol
from research.comparison.protocol import make_protocol as make_protocol
from research.comparison.trials import measure_contender as measure_contender
from research.comparison.trials import measure_contenders as measure_contenders
from research.comparison.trials import train_trials as train_trials
from research.statistics.costs import HALF as HALF
