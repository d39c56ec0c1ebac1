"""Learning-rate schedules: each constructor returns a function t -> η_t.

The step count t starts at 0. It is an array of any shape, of integers or floats. The
rate η_t has the shape of t and JAX's default float dtype. The parameters of a schedule
may be traced.

A schedule has the same type as in optax. So the rules of optax accept these schedules,
and this library accepts the schedules of optax. The polynomial, linear and exponential
schedules of optax divide in float32 if the count and the number of steps are both
integers. The schedules of this library divide in the default float dtype. For float
counts, the schedules of the two libraries agree up to rounding errors. For integer
counts, they agree only to the seven digits of float32.
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

# `join` is not listed, because it takes schedules rather than numbers.
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
