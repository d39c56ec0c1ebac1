"""Authorities on LAMB and Muon."""

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from research.verification.oracles.oracle import Oracle, Recorded


def optax_muon(
    learning_rate,
    beta=0.95,
    nesterov=True,
    eps=1e-7,
    weight_decay=0.0,
    ns_steps=5,
    ns_coeffs=(3.4445, -4.7750, 2.0315),
    bias_correction=False,
):
    """optax.contrib.muon on matrices, with Adam for other leaves, where optax's `nesterov` makes NAdam of it.

    Without bias correction the momentum is optax.trace, which is the average over 1 - β: muon with beta=0 then
    orthogonalises what it is given. A fault of optax's Muon, that the gradient was orthogonalised and not the momentum,
    was mended in January 2025, before its first release with Muon (0.2.5).
    """
    given = (learning_rate, ns_coeffs, ns_steps)
    if bias_correction:
        of_matrices = optax.contrib.muon(
            *given, beta, eps, weight_decay, nesterov=nesterov
        )
    else:
        orthogonalised = optax.contrib.muon(
            *given, 0.0, eps, weight_decay, nesterov=False
        )
        of_matrices = optax.chain(
            optax.trace(beta, nesterov), optax.scale(1.0 - beta), orthogonalised
        )
    return optax.partition(
        {"matrix": of_matrices, "other": optax.adam(learning_rate)},
        lambda params: jax.tree.map(
            lambda x: "matrix" if jnp.ndim(x) == 2 else "other", params
        ),
    )


ORACLES = {
    "lamb": Oracle(
        optax.lamb,
        (Recorded("lamb/wd 0"), Recorded("lamb/wd 0.1", {"weight_decay": 0.1})),
        arguments={
            "b1": 0.5,
            "b2": 0.9,
            "eps": 0.01,
            "eps_root": 0.001,
            "weight_decay": 0.1,
        },
        # A step is the rate times the leaf's length however near the minimum: at 0.05 it circles there without order.
        rates={"quadratic": 0.01, "softmax_regression": 0.02},
    ),
    "muon": Oracle(
        optax_muon,
        "torch.optim.Muon and the reference orthogonalise in bfloat16 whatever the dtype: seven bits are no trace",
        arguments={
            "beta": 0.8,
            "eps": 0.01,
            "weight_decay": 0.1,
            "ns_steps": 3,
            "bias_correction": True,
        },
        # Five iterations magnify what lies 485 times below a matrix's largest singular value to its size, rounding too;
        # in `scales` the entries of one matrix differ by e^60. Measured: 2035 eps in float32, 1657 from optax in float64.
        # Rounding of bfloat16 goes the same way: 30 eps from optax, 31 and 19 from the exact rule.
        bounds={"formula": 4000.0, "optax": 4000.0, "bfloat16": 64.0},
    ),
}
