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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/descent/blob/main/notebooks/the_chain_rule_at_work.ipynb)
#
# # The chain rule at work
#
# Backpropagation is the chain rule, read **backwards, once**, with every intermediate
# result shared. `explain` writes it down for any JAX function. The result is a
# *ledger*, a table with a row for each operation. Here you check a ledger by hand,
# follow one through a network, find where a NaN is created, and learn how to tell a
# right gradient from a wrong one.
#
# Each piece of code comes with a question. **Answer it before you run the code**: on
# paper, with a number. The text after the code says what you should have seen.
#
# The lesson takes under half a minute on two cores, without an accelerator. In Colab,
# run the next cell once (no restart is needed). If the package is already installed,
# skip the cell.

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
import numpy as np

from research import figures
from research.derivatives import check_derivative, explain, finite_difference

# %% [markdown]
# ## One neuron, by hand
#
# The loss of the neuron is $(\sigma(w x + b) - y)^2$ at $w = 0.5$, $b = -1$, $x = 2$,
# $y = 1$. Here $\sigma(z) = 1 / (1 + e^{-z})$ is the sigmoid. You need
# $\sigma(0) = 0.5$ and $\sigma' = \sigma (1 - \sigma)$.
#
# For short, we say the derivative *by* $w$ for the derivative with respect to $w$.
#
# **Predict.** Write down the five values from $w x$ to the loss, one for each
# operation. Then go back from the end. The first derivative there, that of the loss by
# the loss itself, is 1. What is the derivative of the loss by $w$?


# %%
def neuron(w, b, x, y):
    """The squared error of one sigmoid neuron."""
    return (jax.nn.sigmoid(w * x + b) - y) ** 2


ledger = explain(neuron, 0.5, -1.0, 2.0, 1.0)
ledger

# %% [markdown]
# **Seen.** Forward: 1, 0, 0.5, -0.5, and the loss `0.25`. Backward come the *adjoints*,
# the derivatives of the loss by each value. That of the loss is 1, that of $\sigma - y$
# is $2 \cdot (-0.5)$ = `-1`. Through $\sigma$ we multiply by
# $\sigma' = 0.5 \cdot 0.5 = 0.25$: `-0.25`. For $w$ we multiply by $x = 2$: `-0.5`.
# Each arrow of the picture multiplies by one local derivative, that of one operation by
# its input.

# %% [markdown]
# The same from the formulas of a textbook, in plain NumPy.
#
# **Predict.** The derivatives by $w$, $b$ and $x$ share a factor $\delta$. What is
# $\delta$ here, and by what is it multiplied in each of the three?

# %%
w, b, x, y = 0.5, -1.0, 2.0, 1.0
a = 1 / (1 + np.exp(-(w * x + b)))
delta = 2 * (a - y) * a * (1 - a)
print("by hand   ", dict(w=float(x * delta), b=float(delta), x=float(w * delta), y=float(-2 * (a - y))))
print("the ledger", {name: float(ledger.gradient(name)) for name in ledger.inputs})

# %% [markdown]
# **Seen.** Both say `-0.5`, `-0.25`, `-0.125` and `1.0`. The common $\delta$ is the
# adjoint of $w x + b$: it is computed once and used three times, for $w$, for $b$ and
# for $x$. That sharing is the core of backpropagation.

# %% [markdown]
# ## Why backwards, and why once
#
# The chain rule is also a sum over *paths* from the input to the output. Each path
# gives the product of the local derivatives along it. Take $x \to x \cdot x$, several
# times in a row. Each product uses its input twice.
#
# **Predict.** How many paths are there after 10 products, and how many rows has the
# ledger?


# %%
def squared(times):
    """Squares a number that often."""

    def f(x):
        for _ in range(times):
            x = x * x
        return x

    return f


for times in (1, 2, 3, 10):
    chain = explain(squared(times), 1.0)
    paths = chain.paths("x")
    total = sum(float(path.derivative) for path in paths)
    print(f"{times:2} products: {len(chain.rows):2} rows, {len(paths):4} paths, their sum {total:.0f}", end=", ")
    print(f"the gradient {chain.grads:.0f}")

# %% [markdown]
# **Seen.** `10` rows, `1024` paths. The ledger and the sum over the paths give the same
# gradient, but the number of paths doubles with each product. On the way back, the
# derivatives of all paths through a value are added up first, and only the sum is
# passed on. Backpropagation is the chain rule *and* this order.

# %% [markdown]
# ## Softmax
#
# Three scores, $z = (1, 2, 3)$, and the third class is right. Softmax turns them into
# the probabilities $p_k = e^{z_k} / \sum_j e^{z_j}$: 0.09, 0.24, 0.67. The loss is
# minus the logarithm of the third probability.
#
# **Predict.** The gradient of the loss by $z$ is a famous short formula with $p$. Which
# three numbers does it give, and what is their sum?


# %%
def cross_entropy(z):
    """Of the third class."""
    return -jax.nn.log_softmax(z)[2]


scores = jnp.array([1.0, 2.0, 3.0])
print("softmax", jax.nn.softmax(scores).round(4))
ledger = explain(cross_entropy, scores)
ledger

# %% [markdown]
# **Seen.** $p - (0, 0, 1)$, the probabilities minus the label: `0.09003`, `0.2447` and
# `-0.3348`. Their sum is 0, because adding a number to all scores does not change the
# loss. JAX first subtracts the largest score, so that exp does not overflow. No
# derivative passes through this maximum. In the table two contributions meet at
# $z - \max z$: one comes from the exponentials and is $p$; the other comes from the
# score itself and is $-(0, 0, 1)$.

# %% [markdown]
# ## A small network
#
# The network has three hidden units and one output. It gets four points, two
# measurements each, with the labels of "exclusive or": 1 if exactly one of the two
# measurements is 1.
#
# **Predict.** What is the shape of the adjoint of the hidden layer? And what is the
# shape of the gradient by its $2 \times 3$ weights?


# %%
points = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
labels = jnp.array([0.0, 1.0, 1.0, 0.0])


def network(first, last):
    """The mean squared error of a network with one hidden layer."""
    return jnp.mean((jnp.tanh(points @ first) @ last - labels) ** 2)


first, last = jnp.array([[0.5, -1.0, 0.2], [0.3, 0.8, -0.6]]), jnp.array([1.0, -0.5, 0.7])
ledger = explain(network, first, last)
for row in ledger.rows:
    adjoint = "none" if row.adjoint is None else str(np.shape(row.adjoint))
    print(f"{row.name:4} {row.expression:20} value {np.shape(row.value)!s:7} adjoint {adjoint}")
print("gradients", [grad.shape for grad in ledger.grads])

# %% [markdown]
# **Seen.** An adjoint has the shape of its value: the hidden layer's is (4, 3), a
# number for each point and unit. The gradient by the weights is (2, 3). It is the
# product of $X^T$ and the adjoint of `points @ first`, where the rows of $X$ are the
# points. So the product sums over the points.

# %% [markdown]
# ## Many layers
#
# Ten sigmoids, one inside the other, starting at $x = 0$. The code draws the adjoint
# of each layer.
#
# **Predict.** $\sigma'$ is at most 1/4. So how large is the derivative of the output by
# the input, at most?

# %%
layers = 10  # @param {type: "integer"}


def deep(x):
    """Sigmoid of sigmoid of ..."""
    for _ in range(layers):
        x = jax.nn.sigmoid(x)
    return x


ledger = explain(deep, 0.0)
adjoints = [float(ledger.grads), *(float(row.adjoint) for row in ledger.rows)]
print(f"the derivative by the input {adjoints[0]:.1e}, and 1/4 to the tenth {0.25**layers:.1e}")
with figures.style():
    _, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
    axes.semilogy(adjoints, "o-", color=figures.COLOURS["full batch"], label="adjoint")
    axes.semilogy(0.25 ** np.arange(layers, -1, -1), "--", color=figures.COLOURS["exact"], label="1/4 a layer")
    axes.set(xlabel="layer (0 is the input)", ylabel="derivative of the output", title="from right to left it vanishes")
    axes.legend()
plt.show()

# %% [markdown]
# **Seen.** At most $4^{-10}$ = `9.5e-07`. It is `3.9e-07`. From right to left in the
# picture, each layer divides the adjoint by 4 or a little more. Early layers of such a
# network learn next to nothing. This is the *vanishing gradient*, and it is nothing but
# a product of ten small local derivatives.

# %% [markdown]
# ## Where is the NaN created?
#
# The function takes roots with a guard: $\sqrt x$ where $x > 0$, else 0. It adds the
# three results for $(4, 0, 1)$.
#
# **Predict.** What is the value, and what is the gradient? Is the guard enough?


# %%
def guarded(x):
    """The root of what is positive."""
    return jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))


ledger = explain(guarded, jnp.array([4.0, 0.0, 1.0]))
print(ledger.text())

# %% [markdown]
# **Seen.** The value is `3`, as it should be. The gradient is `0.25`, nan, `0.5`.
# `where` chooses after the root has been taken. In the backward pass, the root at 0
# gets the adjoint 0. This 0 is multiplied by the local derivative
# $1 / (2 \sqrt 0) = \infty$, and $0 \cdot \infty$ is NaN.

# %% [markdown]
# `first_nonfinite` follows a NaN back to the row where it was created, with the line of
# the source.
#
# **Predict.** Which row of the table is it, and is the NaN created in the forward or in
# the backward pass? How must the function be written, so that its gradient is right?


# %%
def guarded_twice(x):
    """The same, with a harmless number under the root where it is not wanted."""
    positive = x > 0
    return jnp.sum(jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0))


origin = ledger.first_nonfinite()
print(f"created in {origin.primitive}, {'backward' if origin.backward else 'forward'}: {origin.sentence}")
mended = explain(guarded_twice, jnp.array([4.0, 0.0, 1.0]))
print("guarded twice:", mended.grads, "first NaN:", mended.first_nonfinite())

# %% [markdown]
# **Seen.** In the root, in the backward pass alone. With a second guard *inside* the
# root the gradient is `0.25`, `0.`, `0.5`, and no NaN is left to find.

# %% [markdown]
# ## Kinks
#
# `jax.nn.relu(x)` and `jnp.maximum(x, 0)` are the same function. At 0 it has a kink:
# slope 0 from the left, 1 from the right. The two arguments of the maximum are equal
# there: a *tie*. `at_kinks` lists the operations at a kink or a tie, and
# `finite_difference` uses only values of the function.
#
# **Predict.** Which derivative does JAX give for each of the two at 0?

# %%
for name, f in (("relu", jax.nn.relu), ("maximum", lambda x: jnp.maximum(x, 0.0))):
    ledger = explain(f, 0.0)
    print(f"{name}: derivative {ledger.grads}, with a tie in {ledger.at_kinks()[0].primitive}")
print("from values alone:", finite_difference(lambda x: np.maximum(x, 0.0), 0.0).verdict)

# %% [markdown]
# **Seen.** One function, two answers: `0.0` for relu, `0.5` for maximum. Neither is
# wrong, because there is no derivative at 0. JAX has to choose a number, and `at_kinks`
# says where it did. The values alone say `kink`.

# %% [markdown]
# ## Is my gradient right?
#
# Least squares, $\frac{1}{n} \sum_i (x_i \cdot w + b - y_i)^2$, with a gradient written
# by hand, `by_hand` below. There is a slip (a small mistake) in it. `check_derivative`
# compares a gradient with values of the function.
#
# **Predict.** Find the slip. Which of the two leaves (arrays of parameters), `w` or
# `b`, will `check_derivative` accuse?


# %%
x = jnp.array([[1.0, 2.0], [0.5, -1.0], [-1.5, 0.3], [2.0, 1.0]])
y = jnp.array([1.0, 0.0, -1.0, 2.0])


def loss(p):
    """Mean squared error of a line."""
    return jnp.mean((x @ p["w"] + p["b"] - y) ** 2)


def by_hand(p):
    """Its gradient, with a slip."""
    residual = x @ p["w"] + p["b"] - y
    return {"w": 2 * x.T @ residual / len(y), "b": jnp.mean(residual)}


start = {"w": jnp.array([0.3, -0.2]), "b": jnp.array(0.1)}
report = check_derivative(loss, start, jax.random.key(0), by_hand)
print(report.verdict, report.explanation, sep=": ")

# %% [markdown]
# **Seen.** `wrong`, and in the leaf `b`: a factor of `1/2`, because its 2 was
# forgotten. The check compares the gradient with values of the loss along lines through
# the point. Along some of the lines only one leaf changes, so it can name the leaf.

# %% [markdown]
# **Predict.** JAX's own gradient passes, surely. But how small an error would the check
# have caught? And is a gradient that is too large by one in 100 000 caught?

# %%
report = check_derivative(loss, start, jax.random.key(0))
print(report.text())
enlarged = check_derivative(
    loss, start, jax.random.key(0), lambda p: jax.tree.map(lambda g: 1.00001 * g, jax.grad(loss)(p))
)
print("\nToo large by one in 100 000:", enlarged.verdict)

# %% [markdown]
# **Seen.** `right`. The second line says how sharp the check is: it would have detected
# an error far below $10^{-10}$. So the enlarged gradient is `wrong`. The report also
# gives the Taylor remainder, $f(x + h v) - f(x) - h\, g \cdot v$, for the gradient $g$
# and steps of size $h$ in a direction $v$. With the right gradient it falls as $h^2$
# (slope `2.00` on logarithmic axes), with a wrong one as $h$ (slope 1).

# %% [markdown]
# ## Exercises
#
# Predict first, here too.
#
# 1. **A neuron of your own.** Set $w = 0$, $b = 0$, $x = 3$, $y = 0$ and fill in the
#    ledger by hand, then run it. By which input is the derivative 0, and why?
# 2. **Hunt.** Where is the NaN created in
#    `lambda x: jnp.sum(x / jnp.sqrt(jnp.sum(x**2)))` at `jnp.zeros(2)`, and where in
#    `lambda x: jnp.log(jnp.sum(jnp.exp(x)))` at `jnp.array([1000.0, 0.0])`? Mend both.
# 3. **A gradient that vanishes less.** In `deep`, put `4 * (jax.nn.sigmoid(x) - 0.5)` in the
#    sigmoid's place, so that the local derivative is 1 at 0. How large is the
#    derivative by the input now, starting at 0 and at 1?
