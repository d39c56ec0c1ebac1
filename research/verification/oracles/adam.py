"""Authorities on Adam and its closest kin, and on those with a schedule."""

import optax

from research.verification.oracles.oracle import Oracle, Recorded

ORACLES = {
    "adam": Oracle(
        optax.adam,
        (
            Recorded("adam/defaults"),
            Recorded(
                "adam/b1 0.8 b2 0.95 eps 0.1", {"b1": 0.8, "b2": 0.95, "eps": 0.1}
            ),
        ),
        arguments={"b1": 0.5, "b2": 0.9, "eps": 0.01, "eps_root": 0.001},
    ),
    "adamw": Oracle(
        optax.adamw,
        (
            Recorded("adamw/weight decay 0.1", {"weight_decay": 0.1}),
            Recorded("adamw/library default weight decay", {"weight_decay": 0.01}),
        ),
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "eps": 0.01,
            "eps_root": 0.001,
            "weight_decay": 0.1,
        },
    ),
    "amsgrad": Oracle(
        optax.amsgrad,
        (
            Recorded("amsgrad/defaults", {"correct_before_max": False}),
            Recorded("amsgrad/b2 0.9", {"b2": 0.9, "correct_before_max": False}),
        ),
        # The paper's variant, without corrections, is not in optax 0.2.6; the family's own tests ask its formula.
        arguments={"b1": 0.5, "b2": 0.9, "eps": 0.01, "eps_root": 0.001},
    ),
    "adamax": Oracle(
        optax.adamax,
        (Recorded("adamax/defaults"), Recorded("adamax/eps 0.1", {"eps": 0.1})),
        # With b2 = 0.9 the maximum forgets within 50 steps, and at a minimum the rule divides rounding by itself.
        arguments={"b1": 0.5, "b2": 0.99, "eps": 0.01},
    ),
    "nadam": Oracle(
        optax.nadam,
        (Recorded("nadam/defaults", {"momentum_schedule": "torch"}),),
        arguments={"b1": 0.5, "b2": 0.9, "eps": 0.01, "eps_root": 0.001},
    ),
    "radam": Oracle(
        optax.radam,
        (
            Recorded("radam/defaults", {"eps_before_correction": True}),
            Recorded(
                "radam/b2 0.9 eps 0.01",
                {"b2": 0.9, "eps": 0.01, "eps_before_correction": True},
            ),
        ),
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "eps": 0.01,
            "eps_root": 0.001,
            "threshold": 6.0,
        },
        rates={"rosenbrock": 1e-4},  # The first steps are as long as the gradient.
        # optax takes ρ_6 = 6 as 1999 - 1993, and its sixth step is wrong by 2e-12 of itself; ours by 5e-16 (measured).
        bounds={"optax": 20_000},
    ),
}
