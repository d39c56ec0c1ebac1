"""optax.rprop: each update is that of the call before.

Igel & Hüsken (2003), iRprop-: the step of this call is -sign(g) Δ. The first step of
Rprop is therefore the learning rate.
"""

import jax.numpy as jnp
import optax

rule = optax.rprop(0.1)
x = jnp.zeros(1)
state = rule.init(x)
for g in (1.0, 1.0):
    updates, state = rule.update(jnp.array([g]), state, x)
    print(f"optax {optax.__version__}: {float(updates[0]):.3f}")
print("iRprop-: -0.100, then -0.120, because the sign did not change")
