"""optax.adan: the change of the gradient is multiplied by β2, not 1 - β2.

Xie et al. (2024), algorithm 1: n = (1 - β3) n + β3 [g + (1 - β2)(g - g')]², and the
step has m + (1 - β2) v. optax's b2 is 1 - β2, so that (1 - β2) is b2. With b1 = b3 = 0,
the second step is g + b2 (g - g') divided by its absolute value times the rest, so that
two gradients 1 and 2 tell which factor is used.
"""

import jax.numpy as jnp
import optax

rule = optax.adan(1.0, b1=0.0, b2=0.9, b3=0.5, eps=0.0, eps_root=0.0)
x = jnp.zeros(1)
state = rule.init(x)
for g in (1.0, 2.0):
    updates, state = rule.update(jnp.array([g]), state, x)
# v is corrected: v̂ = (0.1 · 1) / (1 - 0.9²). With the factor a of the change,
# n̂ = (0.25 · 1 + 0.5 (2 + a)²) / 0.75.
step = {
    a: (2 + a * 0.1 / 0.19) / ((0.25 + 0.5 * (2 + a) ** 2) / 0.75) ** 0.5
    for a in (0.9, 0.1)
}
print(
    f"optax {optax.__version__}: {-float(updates[0]):.6f}; algorithm 1, a = b2: "
    f"{step[0.9]:.6f}; a = 1 - b2: {step[0.1]:.6f}"
)
