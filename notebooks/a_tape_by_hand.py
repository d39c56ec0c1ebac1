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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/descent/blob/main/notebooks/a_tape_by_hand.ipynb)
#
# # What does a gradient tape record?
#
# TensorFlow differentiates with a **tape**: it writes down each operation while the
# program runs, and then goes through the list backwards. JAX differentiates a
# **function**. Here you write a tape in twenty lines, train a network with it, and
# compare it with `jax.grad`: the numbers, the steps of descent, and what each of the
# two can see of your program. TensorFlow itself is not needed.
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
# `configure` comes before the first computation: it turns on float64, numbers of
# sixteen digits.

# %%
import research

research.backend.configure(x64=True)

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from research import datasets, derivatives, figures

# %% [markdown]
# ## Three ways to a derivative
#
# $f(x) = x^2 \sin x$ at 2, by the difference quotient $(f(x + h) - f(x)) / h$, by a
# formula that you find on paper, and by JAX, which applies the rules of differentiation
# to the operations of the program.
#
# **Predict.** Take $h = 10^{-8}$. Then $f(x + h)$ and $f(x)$ agree in about eight of
# their sixteen digits. How many digits of the quotient are right? And of JAX's number?


# %%
def f(x):
    """x² sin x."""
    return x**2 * jnp.sin(x)


x, h = 2.0, 1e-8
formula = 2 * x * np.sin(x) + x**2 * np.cos(x)
quotient = (f(x + h) - f(x)) / h
print(f"formula  {formula:.15f}")
print(f"quotient {quotient:.15f}, error {abs(quotient - formula):.0e}")
print(f"JAX      {jax.grad(f)(x):.15f}, error {abs(jax.grad(f)(x) - formula):.0e}")

# %% [markdown]
# **Seen.** The quotient has seven right digits, half of them: the subtraction removes
# the digits that $f(x + h)$ and $f(x)$ share. JAX has all. Its method, *automatic
# differentiation*, is no difference quotient: there is no $h$. It is no algebra either:
# JAX never writes the formula down, it computes the numbers.

# %% [markdown]
# ## A tape
#
# A `Value` holds an array and its inputs: the values from which it was computed. The
# derivative *by* a value is short for the derivative of the final result with respect
# to this value. Each input comes with a function. The function takes the derivative by
# the value, and returns what the value contributes to the derivative by this input. For
# example, let $g$ be the derivative by a product $a b$. Then the product contributes
# $g b$ to the derivative by $a$, and $g a$ to the derivative by $b$. Every new value is
# appended to the tape.
#
# **Predict.** How many entries does the tape get for $x^2 \sin x$, written `x * x *
# sin(x)`? Which number does each hold, at $x = 2$?

# %%
tape = []


class Value:
    """An array that knows its inputs, and how a derivative flows to each of them."""

    def __init__(self, array, *inputs):
        self.array, self.inputs, self.grad = np.asarray(array), inputs, 0.0
        tape.append(self)

    def __mul__(self, other):
        a, b = self.array, other.array
        return Value(a * b, (self, lambda g: g * b), (other, lambda g: g * a))


def sin(x):
    """Sine of a value."""
    return Value(np.sin(x.array), (x, lambda g: g * np.cos(x.array)))


x = Value(2.0)
y = x * x * sin(x)
print(len(tape), "entries:", *(f"{value.array:.4f}" for value in tape))

# %% [markdown]
# **Seen.** `4` entries: $x$, then `4.0000` for $x \cdot x$, `0.9093` for the sine, and
# the product `3.6372`. That is the *forward pass*. Nothing has been differentiated yet.

# %% [markdown]
# The *backward pass* goes from the last entry to the first. It starts with 1, the
# derivative of the result by itself. Each value passes its contributions on to its
# inputs, once. For comparison, `explain` prints the same for JAX.
#
# **Predict.** $x$ is used three times. What must happen to the three contributions?
# (Look for the `+`.) And what is the derivative?


# %%
def backward(result):
    """Go through the tape once, from the result back to the inputs."""
    result.grad = np.ones_like(result.array)
    for value in reversed(tape):
        for source, contribution in value.inputs:
            source.grad = source.grad + contribution(value.grad)


backward(y)
print("on the tape:", *(f"{float(value.grad):.4f}" for value in tape))
print("the tape:", float(x.grad), "  jax.grad:", float(jax.grad(f)(2.0)))
ledger = derivatives.explain(f, 2.0)
for row in ledger.rows:
    print(f"{row.expression:8} = {row.value:.4f}, derivative {row.adjoint:.4f}")

# %% [markdown]
# **Seen.** They are added up, to `1.9726`. `explain` shows the same backward pass for
# JAX: the same values, `4.0000` and `0.9093`, with the same derivatives. (JAX wrote one
# row for $x^2$, where you wrote a product.) JAX *traces* the function: it calls the
# function with a stand-in for $x$, a *tracer*, which records the operations. A tape and
# a traced function do the same arithmetic.

# %% [markdown]
# ## What a tape sees
#
# A tape records what *ran*. So loops and branches of Python are no problem: the tape
# only gets the operations that they ran.
#
# **Predict.** `grow` squares its number until it is above 100. (Its argument `size`
# reads the number, which your tape keeps in `.array`.) Which power of 3 is the result,
# and what is its derivative? `jax.jit` compiles a function once, for all numbers. What
# will it say about the `while`?


# %%
def grow(x, size):
    """Square x until it is larger than 100."""
    while size(x) < 100:
        x = x * x
    return x


tape.clear()
x = Value(3.0)
backward(grow(x, lambda value: value.array))
print(len(tape), "entries, the tape:", float(x.grad))
print("jax.grad:", jax.grad(lambda x: grow(x, lambda value: value))(3.0))
try:
    jax.jit(lambda x: grow(x, lambda value: value))(3.0)
except jax.errors.TracerBoolConversionError as error:
    print(type(error).__name__)

# %% [markdown]
# **Seen.** $3 \to 9 \to 81 \to 6561 = 3^8$, with the derivative $8 \cdot 3^7$ =
# `17496.0`. `jax.grad` alone also runs the program with its numbers. `jax.jit` compiles
# the function *before* it has numbers. At that time a tracer cannot say whether it is
# below 100, so JAX raises a `TracerBoolConversionError`. (TensorFlow's tf.function has
# to solve the same problem.)

# %% [markdown]
# And what does a tape *not* see? Here NumPy computes the sine in $x \sin x$, outside
# the tape, and a new `Value` gets only the result.
#
# **Predict.** The derivative of $x \sin x$ is $\sin x + x \cos x$, which is 0.0770 at
# 2. What does the tape say? And JAX?

# %%
tape.clear()
x = Value(2.0)
backward(x * Value(np.sin(x.array)))  # As with .numpy() in TensorFlow.
print(f"the tape: {float(x.grad):.4f}, without a word")
try:
    jax.grad(lambda x: x * np.sin(x))(2.0)
except jax.errors.TracerArrayConversionError as error:
    print("JAX:", type(error).__name__)
print(f"with jnp.sin: {jax.grad(lambda x: x * jnp.sin(x))(2.0):.4f}")

# %% [markdown]
# **Seen.** `0.9093`, which is $\sin 2$ alone: for the tape the other factor is a
# constant. Steps with a wrong gradient may still reduce the loss, so the error may go
# unnoticed. JAX refuses, with a `TracerArrayConversionError`: NumPy cannot compute with
# a tracer. With `jnp.sin` the derivative is right, `0.0770`.

# %% [markdown]
# ## A network
#
# Three more functions make a network: dense, tanh, cross-entropy. The network reads 64
# pixels, has eight hidden units, and returns ten scores, one for each class. Softmax
# makes probabilities $p$ of the scores: it takes $e^z$ of each score $z$ and divides by
# the sum of the ten. The cross-entropy of an example is $-\ln p$ of its right class,
# and the loss is the mean over the $n$ examples of a batch. The derivative of this mean
# by the scores is $(p - y) / n$, where $y$ is 1 for the right class and 0 for the
# others.
#
# **Predict.** A batch has 64 examples, one in each row. The bias of the hidden units is
# added to all 64 rows. The derivative that arrives has the shape (64, 8). Which shape
# must the derivative by the bias have, and how does it come about?


# %%
def dense(a, w, bias):
    """A matrix product and a bias, which is added to each row."""
    x, m = a.array, w.array
    by_a, by_w = (a, lambda g: g @ m.T), (w, lambda g: x.T @ g)
    return Value(x @ m + bias.array, by_a, by_w, (bias, lambda g: g.sum(axis=0)))


def tanh(a):
    """Hyperbolic tangent."""
    return Value(np.tanh(a.array), (a, lambda g: g * (1 - np.tanh(a.array) ** 2)))


def cross_entropy(z, labels):
    """Mean of -log p over the examples, p the probability of the right class."""
    p = np.exp(z.array - z.array.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    wanted = np.eye(p.shape[1])[labels]
    slope = (z, lambda g: g * (p - wanted) / len(p))
    return Value(-np.mean(np.log((p * wanted).sum(axis=1))), slope)


arriving = np.ones((64, 8))
print("arrives:", arriving.shape, " for the bias:", arriving.sum(axis=0).shape)

# %% [markdown]
# **Seen.** `(8,)`: one number for each unit. What is *copied* forwards, to 64 rows, is
# *added up* backwards. (JAX and TensorFlow do this for you, for every shape.)

# %% [markdown]
# ## The same ten steps
#
# In TensorFlow and in JAX the step looks like this:
#
# | TensorFlow | JAX |
# |---|---|
# | `with tf.GradientTape() as tape: loss = ...` | `def loss(params, x, y): ...` |
# | `grads = tape.gradient(loss, variables)` | `value, grads = jax.value_and_grad(loss)(params, x, y)` |
# | `variable.assign_sub(rate * g)` | `p - rate * g` |
#
# Here is the network with your tape, on pictures of digits, with the first batch of 64.
#
# **Predict.** What is the loss of a network that gives all ten classes the same
# probability? And how many entries does the tape get: four parameters (two matrices of
# weights and two biases), one input, and then?

# %%
digits, random = datasets.load("digits"), np.random.default_rng(0)
batches = random.permutation(1797)[:640].reshape(10, 64)
shapes, scales = ((64, 8), (8,), (8, 10), (10,)), (1 / 8, 0.1, 1 / np.sqrt(8), 0.1)
draw = lambda scale, shape: np.round(scale * random.normal(size=shape), 4)
start = [draw(*pair) for pair in zip(scales, shapes, strict=True)]


def by_tape(params, x, y):
    """Loss and gradient of the network, with the tape."""
    tape.clear()
    values = [Value(p) for p in params]
    hidden = tanh(dense(Value(x), *values[:2]))
    loss = cross_entropy(dense(hidden, *values[2:]), y)
    backward(loss)
    return float(loss.array), [value.grad for value in values]


loss, grads = by_tape(start, digits.x[batches[0]] / 16, digits.y[batches[0]])
print(f"loss {loss:.4f}, ln 10 = {np.log(10):.4f}, {len(tape)} entries")
print("shapes of the gradient:", [grad.shape for grad in grads])

# %% [markdown]
# **Seen.** `2.3933`, a little above $\ln 10$ = `2.3026`, because the initial weights
# are random, and so are the predictions. `9` entries: two dense layers, one tanh and
# the loss come after the five. The gradient has the shapes of the parameters.

# %% [markdown]
# Now ten steps of descent, from the same weights and with the same batches: with your
# tape, with JAX, and with TensorFlow 2.21, whose losses were recorded.
#
# **Predict.** To how many digits will the three agree after ten steps?


# %%
@jax.value_and_grad
def by_jax(params, x, y):
    """Loss and gradient of the same network, with JAX."""
    w1, b1, w2, b2 = params
    log_p = jax.nn.log_softmax(jnp.tanh(x @ w1 + b1[None]) @ w2 + b2[None])
    return -jnp.mean(log_p[jnp.arange(len(y)), y])


def descend(value_and_gradient, rate=0.5, epochs=1):
    """The loss of each step, and the last parameters."""
    params, losses = start, []
    for rows in np.tile(batches, (epochs, 1)):
        loss, grads = value_and_gradient(params, digits.x[rows] / 16, digits.y[rows])
        params = [p - rate * g for p, g in zip(params, grads, strict=True)]
        losses.append(float(loss))
    return np.array(losses), params


(tapes, ours), (jaxs, theirs) = descend(by_tape), descend(jax.jit(by_jax))
recorded = [2.393285037254529, 2.149993925375169, 2.022903711398129]  # 1, 5 and 10.
print(f"first loss {tapes[0]:.4f}, tenth {tapes[-1]:.4f}")
print(f"tape and JAX agree within 1e-13: {np.abs(tapes - jaxs).max() < 1e-13}")
print(f"tape and TensorFlow: {np.abs(tapes[[0, 4, 9]] - recorded).max() < 1e-13}")

# %% [markdown]
# **Seen.** From `2.3933` to `2.0229` in all three, within `1e-13`: thirteen digits.
# Whether a tape is recorded or a function is traced, the arithmetic is the chain rule,
# and only the order of the additions differs.

# %% [markdown]
# ## Descent, live
#
# Train for longer, and choose the rate. An epoch uses each of the ten batches once, so
# ten epochs are a hundred steps.
#
# **Predict.** From which rate on does the loss jump up and down? Do tape and JAX still
# agree after a hundred steps?

# %%
RATE = 0.5  # @param {type: "slider", min: 0.1, max: 12, step: 0.1}
EPOCHS = 10  # @param {type: "slider", min: 1, max: 30, step: 1}
(tapes, ours), (jaxs, theirs) = (
    descend(way, RATE, EPOCHS) for way in (by_tape, jax.jit(by_jax))
)
with figures.style():
    _, axes = plt.subplots(figsize=(5, 3.8), layout="constrained")
    steps = np.arange(1, len(tapes) + 1)
    wide = {"linewidth": 6, "alpha": 0.35, "label": "your tape"}
    axes.plot(steps, tapes, color=figures.COLOURS["stochastic"], **wide)
    axes.plot(steps, jaxs, color=figures.COLOURS["full batch"], lw=1.2, label="JAX")
    axes.set(xlabel="step", ylabel="loss of its batch", ylim=(0, None))
    axes.set_title(f"rate {RATE:g}")
    axes.legend()
plt.show()
apart = max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True))
print(f"last loss {tapes[-1]:.2f}, weights agree within 1e-10: {apart < 1e-10}")

# %% [markdown]
# **Seen.** The two curves lie on each other. With a rate of 0.5 the loss falls to
# `0.34`, and after a hundred steps the weights still agree within `1e-10`. From a rate
# of about 2 on, the loss jumps up and down. Every jump enlarges the differences from
# rounding, until the two paths are different. Both programs are still right.

# %% [markdown]
# ## Exercises
#
# Predict first, here too.
#
# 1. **Forget the plus.** In `backward`, write `source.grad = contribution(value.grad)`.
#    Which derivative does $x^2$ get at 3, and why does the network still learn? (3
#    instead of 6. In the network every value is used once.)
# 2. **More operations.** Write `exp`, `add` and `divide`, and with them the sigmoid
#    $e^x / (1 + e^x)$. Check its derivative with `jax.grad`.
# 3. **With TensorFlow.** In Colab, where it is installed: write `by_tensorflow(params,
#    x, y)` with `tf.GradientTape`, and compare its ten losses with the recorded ones.
#    In which digit do they differ?
