"""Who says what each rule does: optax, recorded trajectories of other implementations, and the arguments to ask with."""

from research.verification.oracles import (
    accumulating,
    adam,
    adam_variants,
    averaging,
    first_order,
    layerwise,
    line_searching,
    newton,
    parameter_free,
    rprop,
    schedule_free,
    sharpness,
    step_sizes,
)
from research.verification.oracles.oracle import Constructor as Constructor
from research.verification.oracles.oracle import Oracle as Oracle
from research.verification.oracles.oracle import Recorded as Recorded

ORACLES: dict[str, Oracle] = {
    **first_order.ORACLES,
    **step_sizes.ORACLES,
    **averaging.ORACLES,
    **accumulating.ORACLES,
    **adam.ORACLES,
    **adam_variants.ORACLES,
    **rprop.ORACLES,
    **layerwise.ORACLES,
    **schedule_free.ORACLES,
    **parameter_free.ORACLES,
    **sharpness.ORACLES,
    **line_searching.ORACLES,
    **newton.ORACLES,
}
