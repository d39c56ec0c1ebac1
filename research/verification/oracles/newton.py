"""Authorities on Newton's method and the natural gradient: no library of update rules has them."""

from research.verification.oracles.oracle import Oracle

GIVEN = ("random_pytree", "sparse_gradients", "scales", "zero_gradient", "nan_gradient")

# Where the full step would be at rest after a few steps, a fraction of it goes on; on given gradients, whose function is
# linear, the natural gradient takes no step unless it is damped.
FRACTIONS = {
    "quadratic": 0.25,
    "rosenbrock": 0.5,
    "softmax_regression": 0.5,
    **dict.fromkeys(GIVEN, 1.0),
}
RADII = {
    "quadratic": 0.125,
    "rosenbrock": 0.125,
    "softmax_regression": 0.25,
    **dict.fromkeys(GIVEN, 0.25),
}

ORACLES = {
    "newton": Oracle(
        "optax has no Newton's method",
        "Neither torch nor timm has a Newton's method",
        arguments={"sufficient_decrease": 0.25, "shrink": 0.25},
        rates={
            **FRACTIONS,
            "rosenbrock": 0.875,
        },  # There trials are refused; at 1 the path magnifies a bit to 2500.
        reasons=dict.fromkeys(
            GIVEN,
            "a given gradient is that of a line, without curvature: the rule takes no step",
        ),
    ),
    "trust_region_newton": Oracle(
        "optax has no trust region",
        "Neither torch nor timm has a trust region",
        arguments={"max_radius": 0.25, "acceptance": 0.0625},
        rates=RADII,
    ),
    "natural_gradient": Oracle(
        "optax has no natural gradient",
        "Neither torch nor timm has a natural gradient",
        arguments={"damping": 0.5},
        rates=FRACTIONS,
        reasons={
            "rosenbrock": "Rosenbrock's function is no likelihood: where its Hessian is indefinite there is no Fisher matrix."
        },
    ),
}
