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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/descent/blob/main/notebooks/decision_boundary.ipynb)
#
# # How does a line become a probability?
#
# **Logistic regression** puts a linear score through a sigmoid and calls the result a
# probability. Here you choose its loss and see why the squared error is a bad one. You
# train it on tumours with two measurements each. You see what the length of the weight
# vector means. At the end there are data without an optimum.
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

from research import derivatives, descent, figures, losses, models, optima, update_rules

# %% [markdown]
# ## From a score to a probability
#
# The score of an example is $z = w^T x + b$, any number. Here $x$ are its measurements,
# $w$ are their weights, and $b$ is the intercept. The sigmoid maps the score to a
# probability:
#
# $$p = \sigma(z) = \frac{1}{1 + e^{-z}}, \qquad
# z = \ln \frac{p}{1 - p}, \qquad \sigma'(z) = \sigma(z)\,(1 - \sigma(z)) .$$
#
# So the score is the logarithm of the odds, $p : (1 - p)$.
#
# **Predict.** Which probability belongs to the score 0? By which factor do the odds
# grow if the score grows by 1? And where is the sigmoid steepest, and how steep?

# %%
for z in (-4.0, -1.0, 0.0, 1.0, 4.0):
    p = float(models.probability(z))
    steepness = derivatives.derivative(models.probability, z)
    print(f"z = {z:4.1f}   p = {p:.4f}   odds {p / (1 - p):7.4f}", end="")
    print(f"   slope {steepness:.4f}")

# %% [markdown]
# **Seen.** `0.5000` at 0, with the slope `0.2500`, the largest. The odds grow by the
# factor $e$: from `1.0000` at 0 to `2.7183` at 1. Far out the slope is nearly 0:
# `0.0177` at 4.

# %% [markdown]
# ## Which loss?
#
# Take an example with the label 1 for which the model has the score $z$. Two losses:
#
# $$\text{squared error } \tfrac12 (\sigma(z) - 1)^2, \qquad
# \text{log loss } -\ln \sigma(z) = \ln(1 + e^{-z}) .$$
#
# **Predict.** The model is sure and wrong: $z = -10$. How strongly does each loss pull
# at the score? (The derivative of the log loss is $\sigma(z) - 1$; that of the squared
# error has the additional factor $\sigma'(z)$.)

# %%
squared = lambda z: losses.squared_error(models.probability(z), jnp.ones_like(z))
log_loss = lambda z: losses.logistic(z, 1)
for z in (-10.0, 0.0, 10.0):
    pulls = [float(derivatives.derivative(loss, z)) for loss in (squared, log_loss)]
    print(f"z = {z:5.1f}: squared error pulls {pulls[0]:.1e}, log loss {pulls[1]:.1e}")
z = jnp.linspace(-10, 10, 201)
with figures.style():
    _, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
    for loss, colour, name in (
        (squared, "stochastic", "squared error"),
        (log_loss, "full batch", "log loss"),
    ):
        axes.plot(z, jax.vmap(loss)(z), color=figures.COLOURS[colour], label=name)
    axes.set(xlabel="score z, the label is 1", ylabel="loss of one example")
    axes.legend()
plt.show()

# %% [markdown]
# **Seen.** The squared error pulls with `-4.5e-05`, next to nothing: to the left its
# curve is flat, so a model that is sure and wrong learns nothing. The log loss pulls
# with `-1.0e+00`. It is convex, too (its slope never falls), and flat only where the
# model is sure and right. And it means something: minus the logarithm of the
# probability that the model gave to what has happened.

# %% [markdown]
# ## Two measurements of tumours
#
# 398 tumours, benign (1) or malignant (0), with two measurements each: the worst radius
# and the worst concave points. "Worst" is the mean of the three largest values among
# the nuclei of the cells. Both are *standardised*: they have the mean 0 and the
# standard deviation 1. The boundary is where the probability is one half. We call the
# model *sure* of a tumour if the probability is below 0.1 or above 0.9.
#
# **Predict.** What is the shape of the set of points where
# $\sigma(w^T x + b) = \frac12$? And how does this set change if $w$ and $b$ are
# doubled?

# %%
workload = research.workloads.make_workload("breast_cancer_two_features")
train, test, exact = workload.train, workload.test, workload.optimum.params
print(f"train on {train.x.shape}, test on {test.x.shape}")
for factor in (0.5, 1.0, 2.0):
    params = {name: factor * value for name, value in exact.items()}
    f, accuracy = workload.objective(params, train), workload.metric(params, test)
    p = models.probability(train.x @ params["weights"] + params["intercept"])
    sure = jnp.mean((p < 0.1) | (p > 0.9))
    print(f"best w and b times {factor}: accuracy {accuracy:.3f}, ", end="")
    print(f"sure of {sure:.0%}, f = {f:.4f}")

# %% [markdown]
# **Seen.** The straight line $w^T x + b = 0$. A factor leaves it where it is, so the
# accuracy is `0.930` each time. But the factor decides how *sure* the model is: it is
# sure of `28%` to `85%` of the tumours. The loss $f$ is higher both if the model is
# less sure than the best one and if it is surer. ($f$ is the mean log loss plus a small
# penalty on $w$, for a reason that comes below.)

# %% [markdown]
# ## Training
#
# Gradient descent with all examples in each step and a rate of 1. So an epoch is one
# step.
#
# **Predict.** What is right first: the direction of the boundary, or how sharply the
# probability changes across it?


# %%
def descend(epochs, rate=1.0):
    """(w1, w2, b) before the first and after each epoch, shape (epochs + 1, 3)."""
    rule = update_rules.gradient_descent(rate)
    init, step = descent.build(workload.objective, rule, train)
    flat = lambda p: jnp.append(p["weights"], p["intercept"])
    first, sampler = workload.init(jax.random.key(0)), research.samplers.full_batch(398)
    keep = lambda state, info: flat(state.params)
    key, epochs = jax.random.key(1), jnp.arange(epochs)
    _, info = descent.run(step, init(first), sampler, key, epochs, observe=keep)
    return np.concatenate([[flat(first)], info.steps.reshape(-1, 3)])


path, best = descend(400), np.append(exact["weights"], exact["intercept"])
for k in (0, 1, 10, 100, 400):
    w, length = path[k, :2], np.linalg.norm(path[k, :2])
    angle = np.degrees(np.arccos(w @ best[:2] / length / np.linalg.norm(best[:2])))
    share = length / np.linalg.norm(best[:2])
    print(f"epoch {k:3}: angle to the best {angle:5.1f} degrees, |w| {share:.2f} of it")

# %% [markdown]
# **Seen.** The direction. It starts at random, `35.3` degrees off, and is `8.9` off
# after one epoch, when the weights have a fifth of their final length, `0.20`. The
# length takes a hundred epochs. The boundary is found early, and the probabilities
# late.

# %% [markdown]
# See it. The lines are where the probability of "benign" is 0.1, 0.5 and 0.9 after
# `EPOCHS` epochs; dashed is the best boundary.
#
# **Predict.** How will the distance between the lines for 0.1 and 0.9 change with the
# epochs? Move the slider from 1 to 400.

# %%
EPOCHS = 10  # @param {type: "slider", min: 1, max: 400, step: 1}
w1, w2, b = path[EPOCHS]
a, c = np.meshgrid(np.linspace(-2.2, 4.2, 200), np.linspace(-2.2, 3.2, 200))
p = np.asarray(models.probability(w1 * a + w2 * c + b))
with figures.style():
    _, axes = plt.subplots(figsize=(5, 4.6), layout="constrained")
    shades = ("#F7DFAE", "#FBF3E1", "#E6F0F8", "#BCD9EC")
    axes.contourf(a, c, p, levels=[0, 0.1, 0.5, 0.9, 1], colors=shades)
    lines = axes.contour(a, c, p, [0.1, 0.5, 0.9], colors="#222222", linewidths=1)
    axes.clabel(lines, fontsize=9)
    score = best[0] * a + best[1] * c + best[2]
    axes.contour(a, c, score, [0], colors="#222222", linestyles="--")
    for label, mark, name in ((0, "x", "malignant"), (1, "o", "benign")):
        here = np.asarray(train.y) == label
        colour = figures.COLOURS[("second class", "first class")[label]]
        axes.plot(*train.x[here].T, mark, color=colour, markersize=5, label=name)
    axes.set(xlabel="worst radius", ylabel="worst concave points")
    axes.set_title(f"after {EPOCHS} epochs")
    axes.legend(loc="lower right", frameon=True)
plt.show()
print(f"0.1 and 0.9 are {2 * np.log(9) / np.hypot(w1, w2):.2f} apart")

# %% [markdown]
# **Seen.** They are `2.43` apart after 10 epochs, and 1.53 at the end. At 0.1 the score
# is $-\ln 9$, at 0.9 it is $\ln 9$, and across the boundary the score grows by $|w|$
# for each unit. So the distance is $2 \ln 9 / |w|$, and falls while $|w|$ grows. The
# line in the middle hardly moves any more.

# %% [markdown]
# ## Newton's method
#
# For the best straight line through points there is a formula. For the best $w$ and $b$
# here there is none. But Newton's method, which uses second derivatives too, needs few
# steps. Let $f^*$ be the minimum of $f$.
#
# **Predict.** How many epochs does descent need until $f - f^*$ is below $10^{-6}$, and
# how many steps did Newton's method take for all sixteen digits?


# %%
def height(p):
    """The objective at (w1, w2, b), above its minimum."""
    params = {"weights": p[:2], "intercept": p[2]}
    return workload.objective(params, train) - workload.optimum.value


gaps = np.asarray(jax.vmap(height)(jnp.asarray(path)))
print("descent:", np.flatnonzero(gaps < 1e-6)[0], "epochs")
print("the package's solver:", workload.optimum.solver)

# %% [markdown]
# **Seen.** `162` epochs, and `7` steps. For three parameters Newton's method is the
# better one. For a network with millions of parameters, the matrix of second
# derivatives is too large to store.

# %% [markdown]
# ## When there is no best line
#
# Four points on a line, and between the classes there is room: $x = -2, -1$ have the
# label 0, and $x = 1, 2$ the label 1. The boundary is at 0, by symmetry.
#
# **Predict.** Which $w$ is best, without a penalty? What will the solver say? And how
# does descent behave?

# %%
x, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
try:
    optima.logistic_regression(x, y, penalty=0.0)
except ValueError as error:
    print(error)
slope = jax.grad(lambda w: jnp.mean(jax.vmap(losses.logistic)(w * x[:, 0], y)))
step = lambda _, w: w - slope(w)
for steps in (10, 100, 1000, 10000):
    w = jax.lax.fori_loop(0, steps, step, 0.0)
    print(f"w after {steps:5} steps: {w:.2f}")
for penalty in (0.1, 0.001):
    found = optima.logistic_regression(x, y, penalty)
    print(f"with penalty {penalty}: w = {found.params['weights'][0]:.2f}")

# %% [markdown]
# **Seen.** There is none: the larger $w$, the smaller the loss, without end. The solver
# refuses: `The classes are separable`. Descent does not notice. It goes on and on: $w$
# is `2.10` after 10 steps and `6.23` after 1000. It grows like the logarithm of the
# number of steps. A penalty, however small, brings the optimum back.

# %% [markdown]
# ## On a computer
#
# **Predict.** $\sigma(40) = 1 - 4 \cdot 10^{-18}$. What does float64 make of it? And
# what is then $-\ln(1 - \sigma(40))$, the loss if the label is 0?

# %%
p = models.probability(40.0)
with np.errstate(divide="ignore"):
    print("probability", p, "  from the probability:", -np.log(1 - np.asarray(p)))
print("from the score:", losses.logistic(40.0, 0))

# %% [markdown]
# **Seen.** `1.0`, because float64 has only sixteen digits. The loss is then minus the
# logarithm of 0, `inf`, and descent cannot use its derivative. From the score the loss
# is `40.0`, as it should be. So a model returns scores, and the loss takes scores.

# %% [markdown]
# ## Exercises
#
# Predict first, here too.
#
# 1. **The squared error, after all.** Train on `x` and `y` of the four points with
#    `losses.squared_error(models.probability(...), ...)` from $w = -10$, with a rate of
#    1. How far does $w$ come in 1000 steps? And with the log loss?
# 2. **Small batches.** In `descend`, use `research.samplers.minibatch(398, 32)` and a
#    rate of 0.25. (`info.steps` then has one row for each batch.) Does the path end at
#    the best point?
# 3. **Odds.** In the trained model, by which factor do the odds of "benign" change if
#    the radius grows by one standard deviation? (They are multiplied by $e^{w_1}$,
#    about 1/9.)
