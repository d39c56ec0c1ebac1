"""Authorities on Adam with another second moment, and on momentum of steps of one size."""

from typing import Any

import jax
import optax

from research.verification.oracles.oracle import Oracle, Recorded


def yogi(
    learning_rate, b1=0.9, b2=0.999, eps=1e-3, eps_root=0.0, initial_mu=0.0
) -> optax.GradientTransformation:
    """optax's, whose first moment starts at 1e-6 like the second, started anew from another one."""
    rule = optax.scale_by_yogi(b1, b2, eps, eps_root)

    def init(params):
        state: Any = rule.init(params)
        return state._replace(mu=jax.tree.map(lambda m: 0 * m + initial_mu, state.mu))

    return optax.chain(
        optax.GradientTransformation(init, rule.update),
        optax.scale_by_learning_rate(learning_rate),
    )


ORACLES = {
    "adabelief": Oracle(
        optax.adabelief,
        "torch and timm's recorded rules do not include AdaBelief",
        arguments={"b1": 0.5, "b2": 0.9, "eps": 0.01, "eps_root": 0.001},
    ),
    "yogi": Oracle(
        yogi,
        "torch and timm's recorded rules do not include Yogi",
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "eps": 0.01,
            "eps_root": 0.001,
            "initial_mu": 1e-6,
        },
    ),
    "adan": Oracle(
        "optax 0.2.8 multiplies changes of the gradient by 1 - b2 where the paper and its authors' code have b2",
        "torch and timm's recorded rules do not include Adan",
        arguments={
            "b1": 0.9,
            "b2": 0.75,
            "b3": 0.95,
            "eps": 0.01,
            "eps_root": 0.001,
            "weight_decay": 0.1,
            "proximal": True,
        },
    ),
    "lion": Oracle(
        optax.lion,
        (
            Recorded("lion/b1 0.9 b2 0.99 wd 0", {"weight_decay": 0.0}),
            Recorded("lion/wd 0.1", {"weight_decay": 0.1}),
        ),
        arguments={"b1": 0.5, "b2": 0.9, "weight_decay": 0.1},
    ),
    "adopt": Oracle(
        optax.contrib.adopt,
        "torch and timm's recorded rules do not include ADOPT",
        arguments={"b1": 0.5, "b2": 0.9, "eps": 0.01, "use_clipping": False},
    ),
}
