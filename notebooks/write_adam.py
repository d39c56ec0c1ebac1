# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/descent/blob/main/notebooks/write_adam.ipynb)
#
# # Write Adam from the paper, then verify it
#
# An update rule makes the next step of a training from the gradient. A rule with a slip
# (a small mistake) in it often still descends. That is why wrong ones get into
# tutorials, libraries and the code of papers. Here you write the rule **Adam** from its
# paper in ten lines and let `verify_rule` say whether it is Adam. It is not, at first.
#
# Each piece of code comes with a question. **Answer it before you run the code**: on
# paper, with a number. The text after the code says what you should have seen.
#
# The lesson takes under a minute on two cores, without an accelerator. In Colab, run
# the next cell once (no restart is needed). If the package is already installed, skip
# the cell.

# %%
# %pip install --quiet git+https://github.com/OWNER/descent

# %% [markdown]
# `configure` comes before the first computation: it turns on float64, numbers of sixteen digits.

# %%
import research

research.backend.configure(x64=True)

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

from research import figures, verification


def descend(rule, f, x, steps):
    """Where a rule goes from x on f: shape (steps + 1, ...)."""

    def step(carry, _):
        x, state = carry
        updates, state = rule.update(jax.grad(f)(x), state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), x

    x = jnp.asarray(x)
    _, path = jax.lax.scan(step, (x, rule.init(x)), length=steps)
    return jnp.concatenate([x[None], path])


# %% [markdown]
# ## The paper
#
# Kingma & Ba (2015), algorithm 1. $\theta$ are the parameters, and $g_t$ is the
# gradient in step $t = 1, 2, \dots$ The rule keeps two averages, $m$ of the gradients
# and $v$ of their squares. From $m_0 = v_0 = 0$:
#
# $$m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t \qquad
# v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2$$
#
# Because they start from 0, the averages are too small at first. The *bias correction*
# divides them by $1 - \beta^t$. Then comes the step, with the learning rate $\alpha$
# and a small $\varepsilon$, so that nothing is divided by 0:
#
# $$\hat m_t = \frac{m_t}{1 - \beta_1^t} \qquad \hat v_t = \frac{v_t}{1 - \beta_2^t} \qquad
# \theta_t = \theta_{t-1} - \alpha\, \frac{\hat m_t}{\sqrt{\hat v_t} + \varepsilon}$$
#
# In optax a rule is two functions: `init(params)` returns the first state.
# `update(gradients, state)` returns the update, which is added to the params, and the
# next state. `descend`, in the cell above, takes the steps of a rule. Below are the ten
# lines, where `b1`, `b2` and `eps` are $\beta_1$, $\beta_2$ and $\varepsilon$. One
# thing in them is wrong. It has been in print: a cookbook had it.
#
# **Predict.** What is wrong? And does this rule find the minimum of $(x - 3)^2$ from 0
# in 200 steps of about 0.1?


# %%
def first_try(learning_rate, b1=0.9, b2=0.999, eps=1e-8):
    """Adam, with a slip."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return jnp.zeros((), jnp.int32), zeros, zeros

    def update(gradients, state, params=None):
        t, m, v = state[0] + 1, state[1], state[2]
        m = jax.tree.map(lambda m, g: (1 - b1) * m + b1 * g, m, gradients)
        v = jax.tree.map(lambda v, g: (1 - b2) * v + b2 * g**2, v, gradients)
        m_hat = jax.tree.map(lambda m: m / (1 - b1**t), m)
        v_hat = jax.tree.map(lambda v: v / (1 - b2**t), v)
        step = jax.tree.map(lambda m, v: -learning_rate * m / (jnp.sqrt(v) + eps), m_hat, v_hat)
        return step, (t, m, v)

    return optax.GradientTransformation(init, update)


path = descend(first_try(0.1), lambda x: (x - 3.0) ** 2, 0.0, 200)
print(f"after 100 steps at {path[100]:.2f}, after 200 at {path[200]:.2f}")

# %% [markdown]
# **Seen.** It does: `3.02`. A plot of the loss goes down, as it should. Nobody would
# look for a mistake.

# %% [markdown]
# ## The verification
#
# `verify_rule` walks two rules side by side: fifty steps on three functions, and on
# five given sequences of gradients (random, sparse, of sizes from $e^{-30}$ to
# $e^{30}$, zero, one with a NaN). If they differ, it puts known mistakes into Adam's
# formula, one at a time. It computes each wrong formula with fifty digits, until one
# gives the same steps as your rule.
#
# **Predict.** How far apart will your rule and optax's Adam be, and will `verify_rule`
# know why?

# %%
result = verification.verify_rule(first_try, optax.adam)
print(result)

# %% [markdown]
# **Seen.** `Not the same rule`: apart by more than a hundred times Adam's largest step.
# The cause is named, with the lines to change:
# `b1 and 1 - b1 are swapped in both averages`. So the average of gradients forgets nine
# tenths at each step instead of one tenth.

# %% [markdown]
# Now with both lines put right.
#
# **Predict.** How far apart are two right programs after fifty steps: exactly 0, about
# $10^{-16}$, about $10^{-8}$?


# %%
def adam(learning_rate, b1=0.9, b2=0.999, eps=1e-8):
    """Kingma & Ba (2015), algorithm 1."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return jnp.zeros((), jnp.int32), zeros, zeros

    def update(gradients, state, params=None):
        t, m, v = state[0] + 1, state[1], state[2]
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, gradients)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, v, gradients)
        m_hat = jax.tree.map(lambda m: m / (1 - b1**t), m)
        v_hat = jax.tree.map(lambda v: v / (1 - b2**t), v)
        step = jax.tree.map(lambda m, v: -learning_rate * m / (jnp.sqrt(v) + eps), m_hat, v_hat)
        return step, (t, m, v)

    return optax.GradientTransformation(init, update)


result = verification.verify_rule(adam, optax.adam)
print(result)
print(len(result.deviations), "problems, all within 1e-14:", result.deviation.largest < 1e-14)

# %% [markdown]
# **Seen.** `The same rule`, on all `8` problems within `1e-14`: a few roundings of
# $10^{-16}$. Two programs seldom round in the same way, so exactly 0 would be luck.
# $10^{-8}$ would be a mistake.

# %% [markdown]
# ## Other slips
#
# Three more slips that people make, all in the last lines: $\varepsilon$ inside the
# root, no bias correction, no root. Here the reference is not optax's rule but a name,
# `"adam"`. The rule is then compared with the paper's formula, in fifty digits.
#
# **Predict.** Which of the three changes the path on a quadratic function so little
# that no plot could show it?


# %%
def variant(divide, correct=True):
    """The constructor of an Adam with another end."""

    def make(learning_rate, b1=0.9, b2=0.999, eps=1e-8):
        def update(gradients, state, params=None):
            _, (t, m, v) = adam(learning_rate, b1, b2).update(gradients, state)
            of_m, of_v = (1 - b1**t, 1 - b2**t) if correct else (1.0, 1.0)
            return jax.tree.map(lambda m, v: -learning_rate * divide(m / of_m, v / of_v, eps), m, v), (t, m, v)

        return optax.GradientTransformation(adam(learning_rate).init, update)

    return make


for make in (
    variant(lambda m, v, eps: m / jnp.sqrt(v + eps)),
    variant(lambda m, v, eps: m / (jnp.sqrt(v) + eps), correct=False),
    variant(lambda m, v, eps: m / (v + eps)),
):
    result = verification.verify_rule(make, "adam")
    quadratic, scales = (result.deviations[name].largest for name in ("quadratic", "scales"))
    print(f"apart by {quadratic:.0e} on the quadratic, {scales:.0e} on gradients of all sizes: {result.cause}")

# %% [markdown]
# **Seen.** `ε is inside the root` is `9e-10` apart on the quadratic, and `1e+00` on
# gradients of all sizes, which is no agreement at all: where $g$ is small beside
# $\sqrt\varepsilon$ the step vanishes. `no bias correction` and
# `the square root is missing` are far apart on both. A test on one easy function finds
# some slips, but not all.

# %% [markdown]
# ## What a loss curve can say
#
# Your rule beside optax's, and the first try, on two functions: Rosenbrock's curved
# valley, and a straight one. Both functions are 0 at the minimum.
#
# **Predict.** On which of the two is the wrong rule ahead at the end?


# %%
def rosenbrock(x):
    """Its minimum is 0, at (1, 1)."""
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def valley(x):
    """Twenty times as steep across as along."""
    return 0.5 * (x[0] ** 2 + 20 * x[1] ** 2)


cases = (("Rosenbrock's function, rate 0.02", rosenbrock, [-1.25, 1.0], 0.02, 100),)
cases += (("a straight valley, rate 0.3", valley, [4.0, 2.0], 0.3, 200),)
rules = ((adam, "yours", "full batch", "-"), (optax.adam, "optax.adam", "exact", ":"))
rules += ((first_try, "the first try", "stochastic", "-"),)
values = {}
for title, f, start, rate, steps in cases:
    for make, name, _, _ in rules:
        values[title, name] = jax.vmap(f)(descend(make(rate), f, jnp.array(start), steps))
        print(f"{title}: {name:13} ends at {values[title, name][-1]:.1e}")

# %% [markdown]
# **Seen.** On Rosenbrock's function the wrong rule is ahead: it ends at `3.9e+00`, the
# right ones at `4.2e+00`. In the straight valley it is far behind: it ends at
# `2.9e-02`, the right ones at `6.0e-09`.

# %% [markdown]
# **Predict.** Draw them against the step. Can you distinguish the curve of yours from
# optax's?

# %%
with figures.style():
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharey=True)
    for axes, (title, *_) in zip(panels, cases, strict=True):
        for _, name, colour, line in rules:
            width = 3.0 if line == ":" else 1.6
            axes.semilogy(values[title, name], line, color=figures.COLOURS[colour], linewidth=width, label=name)
        axes.set(title=title, xlabel="step")
    panels[0].set_ylabel("f, which is 0 at the minimum")
    panels[1].legend()
plt.show()

# %% [markdown]
# **Seen.** No: optax's dots lie on your line from the first step to the last. And the
# left picture is why a rule is verified: there the first try is ahead. If you looked
# only at the loss, you would publish the wrong rule.

# %% [markdown]
# ## Exercises
#
# Predict first, here too. For a file of yours the check is one command:
# `descent verify my_rule.py:adam --against optax.adam`.
#
# 1. **Two Adams in one paper.** At the end of section 2, the paper has a faster form:
#    $\varepsilon$ is added to $\sqrt{v_t}$ *before* the correction. Write it (in
#    `variant`, `m / (jnp.sqrt(v) + eps)` becomes
#    `m / (jnp.sqrt(v) + eps / jnp.sqrt(of_v))`, with `of_v` as an additional argument).
#    Is it the same rule? (No: `verify_rule` says that ε is added before the bias
#    correction. Only tiny gradients show it.)
# 2. **Another argument.** What does `verify_rule` say of
#    `lambda rate: adam(rate, b2=0.99)` against `"adam"`? And of one that forgets the
#    minus sign? (That b2 is 0.99, not 0.999; that the updates have the wrong sign.)
# 3. **From Adam to AdamW.** Add $\lambda = 10^{-4}$ times the params to the quotient,
#    before the rate (`update` gets them as `params`). Which name is it the same as? And
#    if you add it to the gradient instead? (`"adamw"`. In the gradient, the decay also
#    goes through the averages of Adam: it is *coupled*, and `verify_rule` says so.)
