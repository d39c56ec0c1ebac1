"""Learning rates as functions of the step count: each constructor returns t -> η_t.

A schedule is what `optax` calls one, so ours go into optax's rules and optax's into ours. t is a step count from 0, an
integer or float array of any shape; the rate has t's shape and JAX's default float dtype. Parameters may be traced.

Those of optax that divide an integer count by an integer length (polynomial, linear, exponential) do it in float32 even
where float64 is on; ours in the default float dtype. They agree to rounding on float counts, to seven digits on others.
"""

from collections.abc import Callable

from research.schedules.counts import Schedule as Schedule
from research.schedules.cycles import one_cycle as one_cycle
from research.schedules.cycles import warm_restarts as warm_restarts
from research.schedules.decays import constant as constant
from research.schedules.decays import cosine as cosine
from research.schedules.decays import exponential as exponential
from research.schedules.decays import inverse_square_root as inverse_square_root
from research.schedules.decays import inverse_time as inverse_time
from research.schedules.decays import polynomial as polynomial
from research.schedules.decays import step as step
from research.schedules.pieces import join as join
from research.schedules.pieces import linear_warmup as linear_warmup
from research.schedules.pieces import piecewise as piecewise

# Every entry makes a schedule of numbers; `join`, which makes one of schedules, is not among them.
SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "step": step,
    "exponential": exponential,
    "polynomial": polynomial,
    "cosine": cosine,
    "inverse_square_root": inverse_square_root,
    "inverse_time": inverse_time,
    "linear_warmup": linear_warmup,
    "piecewise": piecewise,
    "one_cycle": one_cycle,
    "warm_restarts": warm_restarts,
}
