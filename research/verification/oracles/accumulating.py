"""Authorities on rules that divide by the size of past gradients."""

import optax

from research.verification.oracles.oracle import Oracle, Recorded

_OUTSIDE = {"eps_in_sqrt": False}

ORACLES = {
    "adagrad": Oracle(
        optax.adagrad,
        (
            Recorded(
                "adagrad/library defaults",
                {"initial_accumulator_value": 0.0, "eps": 1e-10, **_OUTSIDE},
            ),
            Recorded(
                "adagrad/matched accumulator 0, eps 0.01",
                {"initial_accumulator_value": 0.0, "eps": 0.01, **_OUTSIDE},
            ),
        ),
        arguments={"initial_accumulator_value": 0.5, "eps": 0.01},
    ),
    "adadelta": Oracle(
        optax.adadelta,
        (Recorded("adadelta/rho 0.9 eps 1e-6"),),
        arguments={"rho": 0.5, "eps": 0.01},
    ),
    "rmsprop": Oracle(
        optax.rmsprop,
        (
            Recorded("rmsprop/library defaults", {"decay": 0.99, **_OUTSIDE}),
            Recorded(
                "rmsprop/matched decay 0.9 eps 0.001, eps_in_sqrt=False",
                {"eps": 0.001, **_OUTSIDE},
            ),
            Recorded(
                "rmsprop/eps 0.001, eps_in_sqrt default", {"eps": 0.001, **_OUTSIDE}
            ),
            Recorded(
                "rmsprop/momentum 0.9, eps outside",
                {"eps": 1e-6, "momentum": 0.9, "rate_in_momentum": False, **_OUTSIDE},
            ),
            Recorded(
                "rmsprop_centered/eps 0.01 outside",
                {"eps": 0.01, "centered": True, **_OUTSIDE},
            ),
            Recorded(
                "rmsprop_centered/eps 0.01, optax default placement",
                {"eps": 0.01, "centered": True, **_OUTSIDE},
            ),
        ),
        arguments={
            "decay": 0.5,
            "eps": 0.01,
            "initial_scale": 1.0,
            "eps_in_sqrt": False,
            "centered": True,
            "momentum": 0.5,
            "nesterov": True,
        },
        # At 0.05 it comes to the minimum within 50 steps, and there divides a gradient of rounding by its own size.
        rates={"quadratic": 0.02, "softmax_regression": 0.02},
    ),
}
