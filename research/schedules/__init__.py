"""Learning-rate schedules: each constructor returns a function t -> η_t.

The step count t starts at 0. It is an integer or float array of any shape. The rate η_t
has the shape of t and JAX's default float dtype. Parameters may be traced.

A schedule has the type that optax uses. These schedules therefore work in optax's
rules, and optax's schedules work here. optax's polynomial, linear and exponential
schedules divide in float32 if both the count and the length are integers. The schedules
here divide in the default float dtype. The results agree up to rounding for float
counts, and to seven digits for integer counts.
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
