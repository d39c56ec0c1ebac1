"""Authorities on gradient descent, momentum and signs."""

import jax.numpy as jnp
import optax

from research.verification.oracles.oracle import Oracle, Recorded

DAMPENED = "momentum/dampening 0.9 (torch) vs EMA trace (optax)"


def averaged(learning_rate, momentum=0.9, undamped_start=False):
    """Of optax, as `ema_momentum`; with the other start the first gradient is scaled up before it is averaged."""
    average = optax.ema(momentum, debias=False)
    if not undamped_start:
        return optax.chain(average, optax.sgd(learning_rate))
    at_first = optax.scale_by_schedule(
        lambda t: jnp.where(t == 0, 1.0 / (1.0 - momentum), 1.0)
    )
    return optax.chain(at_first, average, optax.sgd(learning_rate))


def signed_average(learning_rate, momentum=0.9):
    """As optax.signum is made, which optax 0.2.6 has not yet; there the momentum is called beta."""
    return optax.chain(
        optax.ema(momentum, debias=False),
        optax.scale_by_sign(),
        optax.sgd(learning_rate),
    )


# A multiple of 2^-6, so that on the quadratic all iterates are exact and a gradient is 0 in both walks or in neither.
EXACT = {"quadratic": 3 / 64}

ORACLES = {
    "gradient_descent": Oracle(optax.sgd, (Recorded("sgd/plain"),), unit_steps=False),
    "heavy_ball": Oracle(
        lambda learning_rate, momentum=0.9: optax.sgd(learning_rate, momentum),
        (Recorded("momentum/heavy ball 0.9"),),
        arguments={"momentum": 0.5},
        unit_steps=False,
    ),
    "nesterov": Oracle(
        lambda learning_rate, momentum=0.9: optax.sgd(
            learning_rate, momentum, nesterov=True
        ),
        (Recorded("nesterov/0.9"),),
        arguments={"momentum": 0.5},
        unit_steps=False,
    ),
    "ema_momentum": Oracle(
        averaged,
        (Recorded(DAMPENED, {"undamped_start": True}),),
        arguments={"momentum": 0.5, "undamped_start": True},
        unit_steps=False,
    ),
    "sign_descent": Oracle(
        optax.sign_sgd,
        "no trajectory of another implementation is recorded: torch has no such rule",
        rates=EXACT,
    ),
    "signum": Oracle(
        signed_average,
        "no trajectory of another implementation is recorded: torch has no such rule",
        arguments={"momentum": 0.5},
        rates=EXACT,
    ),
}
