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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/descent/blob/main/notebooks/fit_a_line.ipynb)
#
# # Which line fits best?
#
# **Linear regression** answers: the line $\hat y = w x + b$, with slope $w$ and
# intercept $b$, that has the smallest sum of squared vertical errors. Here you move a
# line by hand. Then two derivatives say where it has to go. You compare descent with
# the formula that gives the line at once. At the end you see why the units of $x$ and a
# single wrong number can matter so much.
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

from research import datasets, descent, figures, losses, optima, update_rules

# %% [markdown]
# ## Three points
#
# No line goes through all three points $(0, 1)$, $(1, 3)$ and $(2, 4)$. Half the mean
# squared error of a line is
#
# $$f(w, b) = \frac{1}{2n} \sum_{i=1}^n (w x_i + b - y_i)^2 .$$
#
# The factor $\frac12$ cancels the 2 from the square in the derivatives:
#
# $$\frac{\partial f}{\partial w} = \frac1n \sum_i r_i x_i \qquad
# \frac{\partial f}{\partial b} = \frac1n \sum_i r_i \qquad
# \text{with the residuals } r_i = w x_i + b - y_i .$$
#
# **Predict.** Both are zero at the best line. What does that say about the sum of its
# residuals? Solve the two equations: which $w$ and $b$?

# %%
points = np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 3.0, 4.0])
best = optima.least_squares(*points).params
w, b = best["weights"][0], best["intercept"]
residuals = w * points[0][:, 0] + b - points[1]
print(f"w = {w:.4f}, b = {b:.4f}, residuals {residuals.round(4)}")
print("their sum is 0:", abs(residuals.sum()) < 1e-12)
print("their sum, weighted with x, is 0:", abs(residuals @ points[0][:, 0]) < 1e-12)

# %% [markdown]
# **Seen.** $w$ = `1.5000` and $b$ = `1.1667`. The residuals of the best line add up to
# zero, and so do the residuals times $x$. So neither a change of $b$ nor a change of
# $w$ can reduce the error further. The two equations are called the *normal equations*.

# %% [markdown]
# ## By hand
#
# Now real data: 442 people with diabetes, their body mass index, and how far the
# illness had gone a year later. The index is *standardised*: its mean is 0 and its
# standard deviation 1. Move the line by its two numbers, in Colab with the sliders.
#
# **Predict.** With $w = 0$, which $b$ is best? Then change $w$ until the error does not
# fall any more: how near to the minimum do you come?

# %%
W = 20.0  # @param {type: "slider", min: -20, max: 100, step: 1}
B = 120.0  # @param {type: "slider", min: 50, max: 250, step: 1}
data = datasets.load("diabetes_raw")
bmi, y = data.x[:, data.feature_names.index("bmi")], data.y
x = (bmi - bmi.mean()) / bmi.std()
optimum = optima.least_squares(x[:, None], y)


def error(w, b):
    """Half the mean squared error of the line w x + b."""
    return 0.5 * np.mean((w * x + b - y) ** 2)


residual = W * x + B - y
print(f"error {error(W, B):.1f}, at the best line {optimum.value:.1f}")
print(f"derivatives by w {np.mean(residual * x):.1f}, by b {np.mean(residual):.1f}")
with figures.style():
    _, axes = plt.subplots(figsize=(5.5, 4.2), layout="constrained")
    axes.vlines(x, y, W * x + B, color=figures.COLOURS["data"], lw=0.5)
    axes.plot(x, y, "o", color=figures.COLOURS["data"], markersize=3)
    axes.axline((0, B), slope=W, color=figures.COLOURS["stochastic"])
    axes.set(xlabel="body mass index, standardised", ylabel="illness after a year")
plt.show()

# %% [markdown]
# **Seen.** With $w = 0$ the best $b$ is the mean of $y$. This $b$ is the best for every
# $w$, because the mean of $x$ is 0. So when the best $w$ is found, too, you are at the
# minimum, as near as the sliders allow. The first line, $w = 20$ and $b = 120$, has an
# error of `2778.0`, the best one `1945.2`. The derivatives are `-25.2` and `-32.1`:
# both negative, so the error falls if $w$ *and* $b$ grow. That is all that descent
# needs to know.

# %% [markdown]
# ## Descent
#
# Each step subtracts the rate $\eta$ times the two derivatives. The second derivatives
# of $f$ are the means of $x^2$, of $x$ and of 1. For standardised $x$ they are 1, 0 and
# 1: their matrix is the identity. So a step multiplies the distance from the best $w$
# and $b$ by $1 - \eta$.
#
# **Predict.** With $\eta = 0.1$, after how many steps is the distance a hundredth of
# the first? And with $\eta = 1$?


# %%
def lines(x, rate, steps):
    """(w, b) before the first and after each step of descent, shape (steps + 1, 2)."""

    def objective(p, batch):
        return 0.5 * jnp.mean((p[0] * x + p[1] - y) ** 2)

    rule = update_rules.gradient_descent(rate)
    init, step = descent.build(objective, rule, None)
    sampler, key = research.samplers.full_batch(1), jax.random.key(0)
    keep = lambda state, info: state.params
    _, info = descent.run(
        step, init(jnp.zeros(2)), sampler, key, jnp.arange(steps), observe=keep
    )
    return np.concatenate([np.zeros((1, 2)), info.steps.reshape(-1, 2)])


exact = np.array([optimum.params["weights"][0], optimum.params["intercept"]])
for rate in (0.1, 0.5, 1.0):
    distance = np.linalg.norm(lines(x, rate, 60) - exact, axis=1)
    close = np.flatnonzero(distance <= 0.01 * distance[0])[0]
    print(f"rate {rate:g}: a hundredth of the distance after {close} steps")

# %% [markdown]
# **Seen.** `44` steps, the smallest whole number above $\ln 0.01 / \ln 0.9 = 43.7$.
# With a rate of 1 it is `1` step: the landscape is a round bowl, and the gradient
# points exactly at its bottom.

# %% [markdown]
# See the line move. Change the rate.
#
# **Predict.** From which rate on does the line overshoot, and from which rate on does
# it never settle?

# %%
RATE = 0.1  # @param {type: "slider", min: 0.05, max: 2.1, step: 0.05}
path = lines(x, RATE, 40)
with figures.style():
    _, (left, right) = plt.subplots(2, 1, figsize=(5, 7), layout="constrained")
    left.plot(x, y, "o", color=figures.COLOURS["data"], markersize=3)
    for k, shade in ((0, 0.15), (1, 0.3), (3, 0.45), (10, 0.7), (40, 1.0)):
        look = {"color": figures.COLOURS["full batch"], "alpha": shade}
        left.axline((0, path[k, 1]), slope=path[k, 0], label=f"{k}", **look)
    left.legend(title="step", ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1))
    left.set(xlabel="body mass index, standardised", ylabel="illness after a year")
    left.set_ylim(-60, 360)
    right.plot(*path.T, "o-", color=look["color"], markersize=4, linewidth=1)
    right.plot(*exact, "x", color=figures.COLOURS["exact"], markersize=9)
    right.set(xlabel="slope w", ylabel="intercept b", title="the path to the best line")
plt.show()
print("after 40 steps:", path[-1].round(2), " exact:", exact.round(2))

# %% [markdown]
# **Seen.** A straight path: after 40 steps `44.49` and `149.88`, and the exact numbers
# are `45.16` and `152.13`. Beyond $\eta = 1$ each step overshoots; beyond 2 each step
# goes further away than the one before.

# %% [markdown]
# ## The units matter
#
# Take the same data with the body mass index as it is measured, in kg/m²: numbers
# between 18 and 42. The line is the same. But the landscape of $w$ and $b$ is not a
# round bowl any more. Its *curvature* in a direction is the second derivative along
# this direction. The largest curvature $L$ limits the rate: $\eta < 2/L$. The smallest
# curvature $\mu$ is that of the slowest direction, in which about $L/\mu$ steps reduce
# the distance by a fixed factor.
#
# **Predict.** $L$ is about the mean of $x^2$. How large is it for numbers around 26?
# And how long does descent take now?

# %%
for name, values in (("standardised", x), ("centred", bmi - bmi.mean()), ("raw", bmi)):
    least, most = optima.curvature(values[:, None])
    print(
        f"{name:13} largest curvature {most:7.2f}, rate below {2 / most:.5f}, "
        f"L / mu = {most / least:,.0f}"
    )
slow = lines(bmi, 1 / 700, 1000)
b_exact = float(optima.least_squares(bmi[:, None], y).params["intercept"])
print(f"raw, after 1000 steps: b = {slow[-1, 1]:.2f}, exact {b_exact:.2f}")

# %% [markdown]
# **Seen.** $L$ is `716.13` and the ratio `26,333`: after 1000 steps $b$ has hardly
# moved, to `-4.28` of `-117.77`. Subtracting the mean (*centred*) makes the ratio `19`.
# Standardising makes it `1`. The advice "standardise your features" is a statement
# about second derivatives.

# %% [markdown]
# ## One wrong number
#
# Someone types an illness of 3000 for the person with the largest body mass index; all
# true numbers are below 350. Squares make large errors count most. The *Huber loss* is
# a square near 0, and grows only linearly beyond `delta`.
#
# **Predict.** By how much does the slope of the least-squares line change, and that of
# the Huber line?


# %%
def slope(loss, y):
    """The slope of the line with the smallest mean loss."""

    def objective(p):
        return jnp.mean(jax.vmap(loss)(p[0] * x + p[1], y))

    start = jnp.array([0.0, float(np.median(y))])
    found = descent.minimise(objective, update_rules.gradient_descent(1.0), start)
    return float(found.params[0])


wrong = y.copy()
wrong[np.argmax(x)] = 3000.0
huber = lambda prediction, target: losses.huber(prediction, target, delta=50.0)
for name, loss in (("squares", losses.squared_error), ("Huber", huber)):
    print(f"{name:8} slope {slope(loss, y):.2f}, with the wrong number", end=" ")
    print(f"{slope(loss, wrong):.2f}")

# %% [markdown]
# **Seen.** One number of 442 moves the slope of the squares from `45.16` to `67.53`,
# which is 1.5 times as large, and the slope of the Huber loss from `49.45` to `50.86`.
# The derivative of half a square is the residual itself, 2,600 here; that of the Huber
# loss is at most `delta`.

# %% [markdown]
# ## Exercises
#
# Predict first, here too.
#
# 1. **A parabola is linear regression, too.** "Linear" means linear in the
#    *parameters*. Fit $a x^2 + w x + b$ with `optima.least_squares(np.stack([x, x**2],
#    1), y)`. Is the error smaller? Can it be larger?
# 2. **Two equal columns.** Give `optima.least_squares` the index twice, `np.stack([x,
#    x], 1)`. Why is there no single best line, and what does the package say? What does
#    descent from 0 find? (Each of the two weights gets half of the slope.)
# 3. **Turn the picture.** Predict $x$ from $y$ instead of $y$ from $x$. Is the line the
#    same one? (No: now the horizontal errors count. The product of the two slopes is
#    $r^2$, the squared correlation.)
