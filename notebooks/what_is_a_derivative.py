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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/descent/blob/main/notebooks/what_is_a_derivative.ipynb)
#
# # What is a derivative?
#
# It is the **limit** of a difference quotient,
# $f'(x) = \lim_{h \to 0} \frac{f(x + h) - f(x)}{h}$. Here you let $h$ shrink, see where
# a computer stops following the formula, use rules in place of the limit, and go from
# one variable to several.
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

from research import derivatives, figures

# %% [markdown]
# ## A rate at one moment
#
# A stone falls $s(t) = 5 t^2$ metres in $t$ seconds. Its average speed from 2 s to
# $2 + h$ s is a difference quotient. The code computes it for four values of $h$.
#
# **Predict.** What is it for $h = 1$, and as $h$ shrinks, what do the others tend to?


# %%
def fallen(t):
    """Metres after t seconds."""
    return 5 * t**2


for h in (1, 0.1, 0.01, 0.001):
    print(f"h = {h:<6} average speed {(fallen(2 + h) - fallen(2)) / h:.3f} m/s")

# %% [markdown]
# **Seen.** It starts at `25.000` and tends to 20: the quotient is $20 + 5h$, as
# `20.005` at the end shows. No $h$ gives 20 itself, and $h = 0$ gives $0 / 0$. The
# derivative is the limit of the quotients. It is not a quotient itself.

# %% [markdown]
# **Predict.** `derivative` differentiates the program exactly, without an $h$. What is
# the speed at 2 s, and how fast does the speed itself change (order 2)?

# %%
for order, name in enumerate(("distance", "speed", "acceleration", "its change")):
    print(f"{name:13} {derivatives.derivative(fallen, 2.0, order=order):.1f}")

# %% [markdown]
# **Seen.** The speed at 2 s is `20.0` m/s. The acceleration is `10.0` m/s² at every
# moment. So the third derivative is `0.0`.

# %% [markdown]
# ## Is a smaller step better?
#
# Now $f = \sin$ at $x = 1$, whose derivative is $\cos 1 = 0.5403$. On paper a smaller
# $h$ is always better.
#
# **Predict.** What does the computer give for $h = 10^{-16}$?

# %%
for h in (1e-4, 1e-8, 1e-16):
    print(f"h = {h:.0e}   quotient {(np.sin(1 + h) - np.sin(1)) / h:.5f}")

# %% [markdown]
# **Seen.** `0.54026`, then `0.54030`, then `0.00000`, of which no digit is right. In
# float64 the next number after 1 is $1 + \varepsilon$, with
# $\varepsilon = 2.2 \cdot 10^{-16}$. The last $h$ is less than half of that. So $1 + h$
# is rounded to 1, and the difference is 0.

# %% [markdown]
# The quotient so far is the *forward* one. The *central* quotient is
# $(f(x + h) - f(x - h)) / 2h$.
#
# **Predict.** Draw the error of both against $h$, with logarithmic axes. Where is it
# smallest? Is the best step of the central quotient smaller or larger than that of the
# forward one?

# %%
with figures.style():
    _, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for scheme, colour in (("forward", "stochastic"), ("central", "full batch")):
        table = derivatives.limit_table(np.sin, 1.0, scheme)
        error = np.abs(table.estimates - table.limit)
        axes.loglog(table.steps, error, "o-", markersize=4, color=figures.COLOURS[colour], label=scheme)
        axes.loglog(table.steps, table.truncation + table.rounding, ":", color=figures.COLOURS[colour])
        print(f"{scheme}: best step near {table.steps[table.best]:.0e}, by theory {table.theory:.0e}")
    axes.set(xlabel="step h", ylabel="error of the quotient")
    axes.set_title("dots: the error; dotted line: its predicted size")
    axes.legend()
plt.show()

# %% [markdown]
# **Seen.** Two valleys. On the right, the error is *truncation*: the step is too large.
# This error falls as $h$, or as $h^2$ for the central quotient. On the left, the error
# is rounding: digits cancel in the difference, and the error grows as
# $\varepsilon / h$. The forward quotient is best near `3e-08`, which is
# about $\sqrt\varepsilon$; the central one near `1e-05`, about $\sqrt[3]\varepsilon$: a
# *larger* step, with a smaller error.

# %% [markdown]
# ## When there is no limit
#
# `finite_difference` looks at the values of a function at many steps. It gives the
# derivative and a bound on its error, or says why there is none.
#
# **Predict.** What is the derivative of $|x|$ at 0? And what does the central quotient
# say, $(|0.1| - |-0.1|) / 0.2$? Has floor, which rounds down to an integer, a
# derivative at 2?

# %%
print("central quotient:", (abs(0.1) - abs(-0.1)) / 0.2)
for name, f, x in (("sin at 1", np.sin, 1.0), ("|x| at 0", np.abs, 0.0), ("floor at 2", np.floor, 2.0)):
    found = derivatives.finite_difference(f, x)
    print(
        f"{name:10} {found.verdict:5} value {found.value:.4f}  from the left {found.left:.4f}, right {found.right:.4f}"
    )

# %% [markdown]
# **Seen.** The central quotient is `0.0` for every $h$, which is wrong. From the left
# the slope is `-1.0000`, from the right `1.0000`: a kink, so there is no derivative. At
# the jump of floor there is none either. Only sin gets an `ok`.

# %% [markdown]
# ## Rules instead of limits
#
# **Predict.** Differentiate $x^2 e^x$ at 1, and give the result as a multiple of $e$.
# Is it the product of the two derivatives, $2x \cdot e^x$?

# %%
found = derivatives.derivative(lambda x: x**2 * jnp.exp(x), 1.0)
print(f"the derivative {found:.4f}   2x e^x {2 * np.e:.4f}   2x e^x + x² e^x {3 * np.e:.4f}")

# %% [markdown]
# **Seen.** It is $3e$ = `8.1548`, not $2e$ = `5.4366`: the product rule has two terms,
# each with one factor differentiated.

# %% [markdown]
# **Predict.** Differentiate $\sin(x^2)$ at 2. Where is the outer derivative, $\cos$,
# taken: at 2 or at 4?

# %%
found = derivatives.derivative(lambda x: jnp.sin(x**2), 2.0)
print(f"the derivative {found:.4f}   cos(2) · 4 = {4 * np.cos(2):.4f}   cos(4) · 4 = {4 * np.cos(4):.4f}")

# %% [markdown]
# **Seen.** `-2.6146`: at 4, the value of the *inner* function. The chain rule says that
# $u(v(x))$ has the derivative $u'(v(x))\, v'(x)$. Taken at 2 it would be `-1.6646`.

# %% [markdown]
# A rule is a claim, and claims can be checked. `verify_derivative_rule` takes random
# points. It compares a rule with JAX, which differentiates the program, and with
# differences, which only evaluate the function.
#
# **Predict.** How many of the sixteen digits will agree with JAX, and how many with differences?

# %%
print(len(derivatives.DERIVATIVE_RULES), "rules, among them:")
for name in ("product", "quotient", "chain", "logarithm"):
    check, rule = derivatives.verify_derivative_rule(name, jax.random.key(0)), derivatives.DERIVATIVE_RULES[name]
    apart = [f"{residual:.0e}" for residual in (check.residual_jax, check.residual_differences)]
    print(f"{rule.text:30} where {rule.domain}: {apart[0]} from JAX, {apart[1]} from differences")

# %% [markdown]
# **Seen.** Of `31` rules, these four agree with JAX to about fifteen digits and with
# differences to about thirteen. Cancellation in the differences costs the other digits.
# A rule comes with a domain: the logarithm's needs $x > 0$.

# %% [markdown]
# ## NumPy's trap
#
# Here is $x^2$ at 1, 2, 3, 4. Its derivative there is 2, 4, 6, 8. `np.gradient` is
# NumPy's function for derivatives, `grid_derivative` is that of this package.
#
# **Predict.** What does `np.gradient` return at the four points? And what does
# `np.gradient(4.0, 2.0)` return, for the single value 4 at $x = 2$?

# %%
x = np.array([1.0, 2.0, 3.0, 4.0])
print("of the function at 2:", np.gradient(4.0, 2.0))
print("np.gradient:", np.gradient(x**2, x))
print("grid_derivative:", derivatives.grid_derivative(x**2, x))
print("without x, on the grid 0, 0.1, ..., 1:", np.gradient(np.linspace(0, 1, 11) ** 2)[5].round(3))

# %% [markdown]
# **Seen.** For the single value the result is `()`, empty, without a warning:
# `np.gradient` takes samples, not functions. For the four samples it is right inside
# the grid. At the ends it is one-sided: `3.` instead of 2, and `7.` instead of 8.
# `grid_derivative` is right at the ends, too. Without the second argument NumPy assumes
# that the points are 1 apart. So on the grid 0, 0.1, ..., 1 it gives `0.1` instead of 1
# at $x = 0.5$.

# %% [markdown]
# ## Several variables: hold the others fixed, or let them change
#
# The area of a rectangle is width times height, here 3 times 9. The *partial*
# derivative by (with respect to) the width keeps the height fixed.
#
# **Predict.** What is it? And if the height changes too, as height = width², how fast
# does the area really grow with the width?


# %%
def area(width, height):
    """Of a rectangle."""
    return width * height


partial = derivatives.partial_derivative(area, "width", 3.0, 9.0)
total = derivatives.total_derivative(area, 3.0, {"height": lambda width: width**2})
print(f"partial {partial:.1f}   total {total.total:.1f}")
for path in total.paths:
    print(f"{' -> '.join(path.names):25} {path.value:.1f}")

# %% [markdown]
# **Seen.** The partial derivative is `9.0`, the height. The total one is `27.0`, three
# times as much: `9.0` directly and `18.0` by way of the height. It is the derivative of
# width³ at 3. A partial derivative has a meaning only if you say what is kept fixed.

# %% [markdown]
# ## All partial derivatives at once
#
# $f(x, y) = x^3 - 3x + y^2$. Its gradient holds both partial derivatives, its Hessian
# (a matrix) the four second ones. Where the gradient is zero, the *eigenvalues* of the
# Hessian decide; if the Hessian is diagonal, they are the numbers on its diagonal. If
# both are positive, the point is a minimum. If they have different signs, it is a
# *saddle*: up in one direction, down in another.
#
# **Predict.** What are the gradient and the Hessian at $(0.5, 1)$? Where are both
# partial derivatives zero, and is that a minimum?


# %%
def valley(point):
    """A function of two numbers."""
    return point[0] ** 3 - 3 * point[0] + point[1] ** 2


here = jnp.array([0.5, 1.0])
print("gradient", derivatives.gradient(valley, here), "Hessian", derivatives.hessian(valley, here).tolist())
bounds = [(-2.0, 2.0), (-1.5, 1.5)]
points = derivatives.critical_points(valley, derivatives.grid_of_starts(bounds, 4), bounds)
for point in points:
    print(
        f"{point.kind:8} at {point.x.round(6) + 0.0}, f = {point.value:.1f}, Hessian's eigenvalues {point.eigenvalues}"
    )

# %% [markdown]
# **Seen.** The gradient is (`-2.25`, `2.`), the diagonal of the Hessian is `3.0`,
# `2.0`, and the other entries are 0. There are two points with a zero gradient: a
# minimum at $(1, 0)$ with $f$ = `-2.0`, and a saddle at $(-1, 0)$ with $f$ = `2.0`,
# where one eigenvalue is negative. A zero gradient alone does not say which is which.

# %% [markdown]
# The code draws the gradient at many points as arrows, and lines of equal $f$.
#
# **Predict.** Where do the arrows point, seen from the lines: along them or across?

# %%
grid = jnp.stack(jnp.meshgrid(jnp.linspace(-1.8, 1.8, 13), jnp.linspace(-1.5, 1.5, 11)), axis=-1).reshape(-1, 2)
arrows = jax.vmap(lambda point: derivatives.gradient(valley, point))(grid)
x, y = np.meshgrid(np.linspace(-2.2, 2.2, 200), np.linspace(-1.7, 1.7, 200))
with figures.style():
    _, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    axes.contour(
        x,
        y,
        valley((x, y)),
        levels=np.arange(-2, 6, 0.5),
        colors=figures.COLOURS["data"],
        linestyles="-",
        linewidths=0.8,
    )
    axes.quiver(*grid.T, *arrows.T, color=figures.COLOURS["full batch"], angles="xy", scale=90, width=0.003)
    for point, mark in zip(points, "oX", strict=True):
        axes.plot(*point.x, mark, markersize=10, color=figures.COLOURS["stochastic"], label=point.kind)
    axes.set(xlabel="x", ylabel="y", title="lines of equal f, and its gradient", aspect="equal")
    axes.grid(False)
    axes.legend(loc="upper right", frameon=True)
plt.show()

# %% [markdown]
# **Seen.** Straight across, in the direction in which $f$ grows fastest. They are
# longer where the lines are close. Around the minimum all arrows point away from it.
# Around the saddle they point towards it along $x$, and away from it along $y$.

# %% [markdown]
# ## Exercises
#
# Predict first, here too.
#
# 1. **Fewer digits.** Draw the two valleys in float32:
#    `limit_table(np.sin, 1.0, scheme, dtype=np.float32)`. Now $\varepsilon = 1.2 \cdot
#    10^{-7}$: where are the best steps? (Near $10^{-3}$ and $10^{-2}$; by theory, near
#    $3 \cdot 10^{-4}$ and $5 \cdot 10^{-3}$.)
# 2. **Which have a derivative at 0?** Ask `finite_difference` about `np.cbrt`, about
#    `lambda x: x * abs(x)`, and about `lambda x: x**2 * np.sin(1 / x) if x else 0.0`.
#    (The last two. The second derivative of $x |x|$ jumps at 0, and $x^2 \sin(1/x)$
#    oscillates infinitely often near 0, but both have a first derivative there.)
# 3. **Price and demand.** At a price $p$ a shop sells $q = 100 - 4p$ pieces, and pays 5
#    for each. Its profit is $(p - 5)\, q$. At $p = 18$, what is the partial derivative
#    by the price, with $q$ held, and what is the total one? Should the price go up? Use
#    `total_derivative(lambda p, q: (p - 5) * q, 18.0, {"q": lambda p: 100 - 4 * p})`.
#    (28 and -24: it should go down.)
