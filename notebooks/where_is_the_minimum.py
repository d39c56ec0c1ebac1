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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/descent/blob/main/notebooks/where_is_the_minimum.ipynb)
#
# # Where is the minimum?
#
# At a minimum inside an interval the derivative is zero, if there is a derivative. The
# converse is false: the derivative is also zero at maxima, at saddles, and at points
# that are none of these. Here you find all points where the derivative is zero, decide
# which of them are minima, look where calculus does not look (at kinks and at the
# ends), and see which of them gradient descent reaches.
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

from research import derivatives, descent, figures, update_rules

# %% [markdown]
# ## Where the derivative is zero
#
# $f(x) = 3x^4 - 4x^3 - 12x^2 + 5$ has the derivative $f'(x) = 12x\,(x + 1)(x - 2)$.
#
# **Predict.** At which three points is it zero? And at which of them is the second
# derivative, $36x^2 - 24x - 24$, negative?


# %%
def f(x):
    """A polynomial of degree four, with two valleys."""
    return 3 * x**4 - 4 * x**3 - 12 * x**2 + 5


for x in (-1.0, 0.0, 2.0):
    first, second = (derivatives.derivative(f, x, order=k) for k in (1, 2))
    print(f"x = {x:4.1f}   f = {f(x):5.1f}   f' = {first:.1f}   f'' = {second:.1f}")

# %% [markdown]
# **Seen.** At -1, 0 and 2. The second derivatives are `36.0`, `-24.0` and `72.0`. Where
# $f''$ is positive, the curve bends upwards: a minimum. Where it is negative, it bends
# downwards: a maximum. So there are two minima, and 2 is the lower one, with $f$ =
# `-27.0`.

# %% [markdown]
# The picture has $f$ above and $f'$ below. The orange line is the tangent of $f$ at
# `X`. Move it: change `X`, in Colab with the slider.
#
# **Predict.** The tangent at 1 goes down to the right. How steeply? And what does $f'$
# do where $f$ has its minima: does it touch zero, or cross it, and in which direction?

# %%
X = 1.0  # @param {type: "slider", min: -1.8, max: 2.6, step: 0.1}
x = np.linspace(-1.9, 2.7, 300)
slope = derivatives.derivative(f, X)
with figures.style():
    _, (above, below) = plt.subplots(
        2, 1, figsize=(5, 6), sharex=True, layout="constrained"
    )
    above.plot(x, f(x), color=figures.COLOURS["full batch"])
    above.axline((X, f(X)), slope=slope, color=figures.COLOURS["stochastic"])
    above.plot(X, f(X), "o", color=figures.COLOURS["stochastic"])
    above.set(ylabel="f", ylim=(-35, 40), title=f"tangent at {X:g}: slope {slope:.1f}")
    below.plot(x, 12 * x * (x + 1) * (x - 2), color=figures.COLOURS["full batch"])
    below.axhline(0, color=figures.COLOURS["exact"], linewidth=0.8)
    below.plot(X, slope, "o", color=figures.COLOURS["stochastic"])
    below.set(xlabel="x", ylabel="f'", ylim=(-60, 90))
    for point in (-1, 0, 2):
        for panel in (above, below):
            panel.axvline(point, color=figures.COLOURS["data"], ls=":", lw=1)
plt.show()
print(f"slope at {X:g}: {slope:.1f}")

# %% [markdown]
# **Seen.** `-24.0`. At a minimum $f'$ crosses zero *upwards*: first the curve falls,
# then it rises. At the maximum $f'$ crosses downwards. The sign of $f''$ says just
# this.

# %% [markdown]
# ## When the second derivative is zero, too
#
# If $f''$ is zero at the point, it does not decide. Take $x^3$, $x^4$ and $-x^4$, all
# at 0. `classify_critical_point` names the kind of a point where $f'$ is zero.
#
# **Predict.** The first and the second derivative are zero for all three. Which of them
# has a minimum at 0, and which has neither a minimum nor a maximum?

# %%
for name, g in (
    ("x³", lambda x: x[0] ** 3),
    ("x⁴", lambda x: x[0] ** 4),
    ("-x⁴", lambda x: -(x[0] ** 4)),
):
    point = derivatives.classify_critical_point(g, np.zeros(1))
    print(f"{name:3} {point.kind}, order {point.order}: {point.note}")

# %% [markdown]
# **Seen.** All are `degenerate`, which means that $f''$ does not decide. Go on to the
# third derivative, the fourth, and so on: the first that is not zero decides. Its order
# is `3` for $x^3$, an odd number, so the curve goes on in the same direction. It is `4`
# for the others, an even number: a minimum for $x^4$, a maximum for $-x^4$.

# %% [markdown]
# ## Where calculus does not look
#
# A minimum may lie at a kink, where there is no derivative, or at the end of an
# interval, where the derivative need not be zero. `certified_minimum` searches a whole
# interval with its ends. It gives two bounds, between which the smallest value lies,
# and proves them.
#
# **Predict.** What is the smallest value of $f$ for $-2 \le x \le 1$, and where? And
# that of $|x - 1| + x/2$ for $-2 \le x \le 3$?

# %%
kinked = lambda x: jnp.abs(x[0] - 1) + x[0] / 2
for name, g, low, high in (
    ("f", lambda x: f(x[0]), -2.0, 1.0),
    ("|x - 1| + x/2", kinked, -2.0, 3.0),
):
    found = derivatives.certified_minimum(g, [(low, high)], tolerance=1e-6)
    print(
        f"{name:13} on [{low:g}, {high:g}]: {found.low:.4f} to {found.high:.4f}"
        f" at x = {found.x[0]:.4f}, proved: {found.complete}"
    )
print("f' at the end:", derivatives.derivative(f, 1.0))
print("at the kink:", derivatives.finite_difference(lambda x: kinked([x]), 1.0).verdict)

# %% [markdown]
# **Seen.** $f$ is smallest at the end, with `-8.0000` at `1.0000`, where its derivative
# is `-24.0`: it would go on falling, but the interval is over. The second function is
# smallest at its `kink`, with `0.5000`. So there are three kinds of candidates: zeros
# of the derivative, kinks, and ends.

# %% [markdown]
# ## What descent finds
#
# Gradient descent goes from a start against the slope, $x \leftarrow x - \eta f'(x)$,
# with a constant $\eta$, the rate. It uses nothing but the slope at the current point.
#
# **Predict.** Where does it end from 0.1, from -0.1, and from 0 itself, with $\eta =
# 0.01$? And what happens with $\eta = 0.03$? Near 2 the second derivative is 72. (The
# code prints the last two points of each path.)


# %%
def walk(start, rate, steps=60):
    """The points that gradient descent visits, shape (steps + 1,)."""
    rule = update_rules.gradient_descent(rate)
    init, step = descent.build(lambda x, batch: f(x), rule, None)
    _, info = descent.run(
        step,
        init(jnp.array(start)),
        research.samplers.full_batch(1),
        jax.random.key(0),
        jnp.arange(steps),
        observe=lambda state, info: state.params,
    )
    return np.concatenate([[start], np.ravel(info.steps)])


for start, rate in ((0.1, 0.01), (-0.1, 0.01), (0.0, 0.01), (0.1, 0.03)):
    last = walk(start, rate)[-2:]
    print(f"from {start:4}, rate {rate:g}: ends with {last[0]:.3f}, {last[1]:.3f}")

# %% [markdown]
# **Seen.** At `2.000`, at `-1.000`, which is not the lowest point, and at `0.000`,
# which is a maximum: the slope there is 0, so nothing moves. A little noise would push
# it off. With the larger rate it does not settle at 2. Near 2, $f'(x)$ is about
# $72\,(x - 2)$. So a step multiplies the distance from 2 by $1 - 72\eta$, whose size is
# below 1 only for $\eta < 2/72$ = 0.028.

# %% [markdown]
# The same as a picture, with a start and a rate that you can change.
#
# **Predict.** What is the largest rate with which a start at 0.5 still converges, and
# what does the path look like just above this rate?

# %%
START = 0.5  # @param {type: "slider", min: -1.8, max: 2.6, step: 0.1}
RATE = 0.026  # @param {type: "slider", min: 0.001, max: 0.04, step: 0.001}
path = walk(START, RATE)
with figures.style():
    _, (landscape, time) = plt.subplots(2, 1, figsize=(5, 6), layout="constrained")
    landscape.plot(x, f(x), color=figures.COLOURS["exact"], linewidth=1)
    landscape.plot(path, f(path), "o-", color=figures.COLOURS["full batch"], ms=4, lw=1)
    landscape.plot(path[0], f(path[0]), "o", color=figures.COLOURS["stochastic"])
    landscape.set(xlabel="x", ylabel="f", xlim=(-1.9, 2.7), ylim=(-35, 40))
    landscape.set_title(f"from {START:g} (orange) with rate {RATE:g}")
    time.plot(path, "o-", color=figures.COLOURS["full batch"], ms=3, lw=1)
    time.set(xlabel="step", ylabel="x")
plt.show()
print(f"after {len(path) - 1} steps: x = {path[-1]:.3f}")

# %% [markdown]
# **Seen.** A little below 2/72 = 0.0278 the path jumps from side to side and comes
# nearer with each jump: after 60 steps it is at `2.000`. Change `RATE` to a value just
# above: the path goes on jumping between two points.

# %% [markdown]
# ## Two variables
#
# Himmelblau's function is $(x^2 + y - 11)^2 + (x + y^2 - 7)^2$. Where its gradient is
# zero, the *eigenvalues* of the matrix of second derivatives decide. If all are
# positive, the point is a minimum. If all are negative, it is a maximum. If there are
# both signs, it is a saddle: up in one direction, down in another.
#
# **Predict.** It has four minima. Between neighbouring valleys there is a pass, a
# saddle, and the ring of valleys surrounds a hill. How many points are there in all?


# %%
def himmelblau(p):
    """Himmelblau's function of a point (x, y)."""
    return (p[0] ** 2 + p[1] - 11) ** 2 + (p[0] + p[1] ** 2 - 7) ** 2


bounds = [(-5.0, 5.0), (-5.0, 5.0)]
starts = derivatives.grid_of_starts(bounds, 12)
points = derivatives.critical_points(himmelblau, starts, bounds)
for point in points:
    low, high = np.sort(point.eigenvalues)
    print(
        f"({point.x[0]:6.3f}, {point.x[1]:6.3f})  f = {point.value:7.3f}  "
        f"eigenvalues {low:7.2f} {high:7.2f}  {point.kind}"
    )
print(len(points), "points")

# %% [markdown]
# **Seen.** `9`: four minima, all with $f$ = `0.000`, four saddles, and one maximum, the
# hill. `critical_points` uses Newton's method. It solves $\nabla f = 0$, so it finds
# all kinds equally well.

# %% [markdown]
# Now gradient descent from 400 starts on a grid. Each start gets the colour of the
# point where its path ends.
#
# **Predict.** How many of the 400 end in a saddle? And where is the border between two
# colours?

# %%
grid = derivatives.grid_of_starts(bounds, 20)
step = lambda _, p: p - 0.005 * jax.grad(himmelblau)(p)
ends = jax.vmap(lambda p: jax.lax.fori_loop(0, 2000, step, p))(jnp.asarray(grid))
places = np.array([point.x for point in points])
nearest = np.linalg.norm(np.asarray(ends)[:, None] - places, axis=2).argmin(axis=1)
kinds = [points[k].kind for k in nearest]
print({kind: kinds.count(kind) for kind in ("minimum", "saddle", "maximum")})
names = ("full batch", "mini-batch", "stochastic", "decaying")
with figures.style():
    _, axes = plt.subplots(figsize=(5, 5), layout="constrained")
    for k, name in enumerate(names):
        axes.plot(*grid[nearest == k].T, "s", color=figures.COLOURS[name], alpha=0.5)
    for point in points:
        mark = {"minimum": "o", "saddle": "X", "maximum": "^"}[point.kind]
        axes.plot(*point.x, mark, color="black", markersize=9)
    axes.set(xlabel="x", ylabel="y", aspect="equal")
    axes.set_title("minima ●, saddles ✖ and the maximum ▲")
    axes.grid(False)
plt.show()

# %% [markdown]
# **Seen.** None: `'saddle': 0`. Only points exactly on the border between two colours
# go to a saddle, and a border has no width. So descent ends in minima, but in *which*
# one is decided by the start. Which minimum is the lowest, descent cannot know.

# %% [markdown]
# ## Exercises
#
# Predict first, here too.
#
# 1. **A box.** From a square of 12 by 12 cm you cut a square of side $x$ at each corner
#    and fold the rest to an open box. For which $x$ is its volume, $x (12 - 2x)^2$, the
#    largest? Which other zero does the derivative have, and what is it? (2, with 128
#    cm³; 6, with no volume at all: a minimum.)
# 2. **Nearly flat.** Ask `classify_critical_point` about $x^6 + y^2$ and about $(y -
#    x^2)(y - 3x^2)$ at $(0, 0)$. The second one rises along every straight line through
#    0. Is 0 a minimum? (No: go along the parabola $y = 2x^2$.)
# 3. **Too few starts.** Find the points of Himmelblau's function from
#    `grid_of_starts(bounds, 2)`. Then call `critical_points` again with
#    `prove_seconds=20`, and print the result. How many points did the search miss?
#    (Five: interval arithmetic proves that they are there, and that there are no
#    others.)
