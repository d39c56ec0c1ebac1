"""Authorities on gradient descent and momentum."""

import optax

from research.proofs.oracles.oracle import Oracle, Recorded

ORACLES = {
    "gradient_descent": Oracle(optax.sgd, (Recorded("sgd/plain"),), unit_steps=False),
    "heavy_ball": Oracle(
        lambda learning_rate, momentum=0.9: optax.sgd(learning_rate, momentum),
        (Recorded("momentum/heavy ball 0.9"),),
        arguments={"momentum": 0.5},
        unit_steps=False,
    ),
    "nesterov": Oracle(
        lambda learning_rate, momentum=0.9: optax.sgd(learning_rate, momentum, nesterov=True),
        (Recorded("nesterov/0.9"),),
        arguments={"momentum": 0.5},
        unit_steps=False,
    ),
}
