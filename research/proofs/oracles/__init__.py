"""Who says what each rule does: optax, recorded trajectories of other implementations, and the arguments to ask with."""

from research.proofs.oracles import adaptive, averaging, first_order, step_sizes
from research.proofs.oracles.oracle import Constructor as Constructor
from research.proofs.oracles.oracle import Oracle as Oracle
from research.proofs.oracles.oracle import Recorded as Recorded

ORACLES: dict[str, Oracle] = {
    **first_order.ORACLES,
    **step_sizes.ORACLES,
    **averaging.ORACLES,
    **adaptive.ORACLES,
}
