"""Authorities on Rprop."""

from research.verification.oracles.oracle import Oracle, Recorded

ORACLES = {
    "rprop": Oracle(
        "optax.rprop (to 0.2.8) is one step stale: its first update is 0, and each later one is what the call before "
        "should have given",
        (Recorded("rprop/defaults"),),
        arguments={
            "eta_minus": 0.25,
            "eta_plus": 1.5,
            "min_step_size": 0.01,
            "max_step_size": 0.5,
        },
    ),
}
