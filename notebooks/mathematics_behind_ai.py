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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/descent/blob/main/notebooks/mathematics_behind_ai.ipynb)
#
# # Which mathematics is in a program that learns?
#
# Three parts: **linear algebra** computes the prediction, **probability** says how
# wrong it is, and the **derivative** says what to change. From these three parts you
# build a program that reads handwritten digits. Then you take the derivative away, let
# the program learn by trial and error, and count what that costs.
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

from research import datasets, derivatives, descent, figures, losses, update_rules
from research.figures import images

# %% [markdown]
# ## Linear algebra: the prediction
#
# A picture of a handwritten digit has 8 by 8 pixels: it is a vector $x$ of 64
# brightnesses. For each of the ten digits the program computes a score, a weighted sum
# of the brightnesses plus a constant. The vector $z$ holds the ten scores, the matrix
# $W$ the weights, and the vector $b$ the constants:
#
# $$z = W x + b, \qquad W \in \mathbb{R}^{10 \times 64},\; b \in \mathbb{R}^{10} .$$
#
# The program learns $W$ and $b$ from 1,437 pictures, the training pictures. The other
# pictures of the data set are kept for the test.
#
# **Predict.** How many numbers must be learnt? What is the shape of the scores of all
# training pictures at once, and how many multiplications do they take?

# %%
split = datasets.images("digits")
x, test_x = (part.reshape(-1, 64) / 16 for part in (split.train_x, split.test_x))
y, test_y = split.train_y, split.test_y


def scores(params, x):
    """The scores of pictures x, shape (n, 64), for ten digits, shape (n, 10)."""
    return x @ params["W"].T + params["b"][None]


nothing = {"W": jnp.zeros((10, 64)), "b": jnp.zeros(10)}
print("parameters:", sum(leaf.size for leaf in jax.tree.leaves(nothing)))
print("scores:", scores(nothing, x).shape, "multiplications:", len(x) * 10 * 64)

# %% [markdown]
# **Seen.** `650` numbers. The scores have the shape `(1437, 10)` and take `919680`
# multiplications, all of them one matrix product: that is why a computer can be so fast
# at it.

# %% [markdown]
# ## Probability: how wrong is it?
#
# Softmax makes probabilities of the scores: $p_k = e^{z_k} / \sum_j e^{z_j}$ is the
# probability of the digit $k$. The loss of a picture is $-\ln p_y$, where $y$ is the
# right digit. It is 0 if the program was sure of $y$, and large if it thought $y$
# nearly impossible. The mean loss of the training pictures is the number to make small.
# We call it $f$.
#
# **Predict.** With all 650 numbers 0, what are the ten probabilities, and what is the
# loss?


# %%
def objective(params):
    """Mean of -ln p of the right digit, over the training pictures."""
    return jnp.mean(jax.vmap(losses.softmax_cross_entropy)(scores(params, x), y))


def accuracy(params):
    """Share of the test pictures whose highest score is that of the right digit."""
    return float(jnp.mean(scores(params, test_x).argmax(axis=1) == test_y))


print("probabilities:", jax.nn.softmax(scores(nothing, x[0][None]))[0])
print(f"loss {objective(nothing):.4f}, ln 10 = {np.log(10):.4f}")

# %% [markdown]
# **Seen.** Each is 0.1, and the loss is $\ln 10$ = `2.3026`: that of somebody who knows
# nothing. A loss above it would be worse than guessing.

# %% [markdown]
# ## The derivative: what to change
#
# The gradient of $f$ has one entry for each of the 650 numbers: the change of the loss
# if this number grows a little, divided by the growth. Below are the entries for the
# weights, $\partial f / \partial W$, drawn as ten pictures of 8 by 8 pixels. An entry
# is blue where a larger weight would increase the loss, and red where it would decrease
# it. At the end, the code changes one weight a little and measures the change of the
# loss.
#
# **Predict.** A 0 is empty in the middle. So how should the weights in the middle of
# the picture of 0 change? Which colour are they?

# %%
slopes = jax.grad(objective)(nothing)
with figures.style():
    _, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    pictures = np.asarray(slopes["W"]).reshape(10, 8, 8, 1)
    images.draw_filters(axes, pictures, split.classes, columns=5)
plt.show()
row, pixel, by = 0, 27, 0.01  # The middle of 0.
changed = {**nothing, "W": nothing["W"].at[row, pixel].add(by)}
measured = (objective(changed) - objective(nothing)) / by
print(f"derivative {slopes['W'][row, pixel]:.4f}, measured {measured:.4f}")

# %% [markdown]
# **Seen.** Blue: `0.0435`. To read a 0 better, the program must count brightness in the
# middle *against* it. The gradient gives such a derivative for all 650 numbers at once.
# This one agrees with the difference quotient that was measured with a small step,
# `0.0437`.

# %% [markdown]
# ## Learning: all three together
#
# Gradient descent changes all numbers against their derivatives, again and again. Each
# step subtracts from every number its derivative times a constant, the *rate*.
#
# **Predict.** Guessing gets 10 % of the test pictures right. What does the program get
# right after 10 steps, and after 300? Then try other values of `RATE` and `STEPS`.

# %%
RATE = 0.5  # @param {type: "slider", min: 0.05, max: 5, step: 0.05}
STEPS = 300  # @param {type: "slider", min: 10, max: 1000, step: 10}


def learn(rate, steps):
    """The parameters and the loss after each step of gradient descent."""
    rule = update_rules.gradient_descent(rate)
    init, step = descent.build(lambda params, batch: objective(params), rule, None)
    sampler, key = research.samplers.full_batch(1), jax.random.key(0)
    keep = lambda state, info: (state.params, info.loss)
    epochs = jnp.arange(steps)
    _, info = descent.run(step, init(nothing), sampler, key, epochs, observe=keep)
    return jax.tree.map(lambda leaf: leaf[:, 0], info.steps)


path, falling = learn(RATE, STEPS)
for k in (1, 10, STEPS):
    params = jax.tree.map(lambda leaf: leaf[k - 1], path)
    print(f"after {k:3} steps: loss {objective(params):.3f}, ", end="")
    print(f"{accuracy(params):.1%} of the test pictures")

# %% [markdown]
# **Seen.** After a *single* step `81.1%`, though the loss has hardly moved: the first
# gradient contains the mean picture of each digit. Then the loss falls from `2.203` to
# `0.192`, and the share rises to `83.6%` after 10 steps and `88.9%` after 300. The test
# pictures are the last fifth. They are harder than the others.

# %% [markdown]
# ## What a gradient costs
#
# A gradient by difference quotients needs one evaluation of the loss for each of the
# 650 numbers, and one more for the point itself. `jax.grad` computes it backwards, by
# the chain rule. `cost_ratio` counts the operations of `jax.grad` and divides them by
# the operations of one evaluation.
#
# **Predict.** How many evaluations of the loss does a gradient of 650 numbers cost, if
# it is computed backwards? And a gradient of 65 million numbers?

# %%
ratio = derivatives.cost_ratio(jax.grad, objective, nothing, seconds=0).flops
print(f"by differences: {650 + 1} evaluations, backwards: {ratio:.1f}")

# %% [markdown]
# **Seen.** `2.0` instead of `651`. The factor hardly depends on how many numbers there
# are: for 65 million it is about the same. In the experiment
# *cheap_gradient* it is below 4 for 14 functions. (Three others need more, among them
# the running product, jnp.cumprod, and the log-determinant by Cholesky.) This is why
# networks with billions of numbers can learn at all.

# %% [markdown]
# ## Without the derivative
#
# Now the program may evaluate only the loss, not its derivatives. It changes all
# numbers a little at random, and keeps the change if the loss has become smaller. So it
# never steps in a wrong direction.
#
# **Predict.** How large is the loss after as many evaluations as 300 steps of descent
# cost? Then try other values of `SIZE`, the size of the changes.

# %%
SIZE = 0.02  # @param {type: "slider", min: 0.002, max: 0.1, step: 0.002}
TRIALS = 3000  # @param {type: "slider", min: 500, max: 6000, step: 500}


def trial(carry, key):
    """Change everything at random; keep the change if the loss is smaller."""
    params, value = carry
    keys = dict(zip(params, jax.random.split(key), strict=True))
    change = lambda name: SIZE * jax.random.normal(keys[name], params[name].shape)
    other = {name: params[name] + change(name) for name in params}
    better = objective(other) < value
    params = jax.tree.map(lambda new, old: jnp.where(better, new, old), other, params)
    value = jnp.minimum(objective(other), value)
    return (params, value), value


keys = jax.random.split(jax.random.key(0), TRIALS)
run = jax.jit(lambda: jax.lax.scan(trial, (nothing, objective(nothing)), keys))
(found, _), trials = run()
print(f"{TRIALS} trials: loss {trials[-1]:.3f}, {accuracy(found):.1%} of the pictures")
print(f"{STEPS} steps cost {ratio * STEPS:.0f}: loss {objective(params):.3f}")
same = trials[: round(ratio * STEPS)]
print(f"after {len(same)} trials: loss {same[-1]:.3f}")

# %% [markdown]
# **Seen.** Trial and error works: after 3000 trials the loss is `0.178`, and `89.2%` of
# the test pictures are right. Descent reaches `0.192`, but for the cost of only `594`
# evaluations. After as many trials the loss is still `1.212`.

# %% [markdown]
# Now a picture: the loss of both methods against the cost.
#
# **Predict.** Both methods reach the loss 0.5. How many times as much as descent do the
# trials cost until then?

# %%
cost = ratio * np.arange(len(falling))
with figures.style():
    _, axes = plt.subplots(figsize=(5.5, 4), layout="constrained")
    colours = figures.COLOURS
    axes.plot(cost, falling, color=colours["full batch"], label="with the gradient")
    axes.plot(trials, color=colours["data"], label="trial and error")
    axes.axhline(np.log(10), color=colours["exact"], ls=":", lw=1)
    axes.text(len(trials), np.log(10), "guessing", ha="right", va="bottom")
    axes.set(xlabel="cost, in evaluations of the loss", ylabel="loss", ylim=(0, 2.6))
    axes.legend(loc="center right")
plt.show()
reached = [cost[np.argmax(falling < 0.5)], np.argmax(trials < 0.5)]
print(f"to 0.5: {reached[0]:.0f} and {reached[1]}, {reached[1] / reached[0]:.1f} times")

# %% [markdown]
# **Seen.** `11.0` times: `1436` evaluations instead of `131`. Eleven times is not much,
# one might think. But how does this factor grow if more numbers are learnt?

# %% [markdown]
# ## And with more numbers?
#
# Take the simplest bowl, $f(x) = \frac12 |x|^2$ in $n$ dimensions. Both methods start
# at $x = (1, \dots, 1)$ and stop when $f$ is a hundredth of its first value, or less.
# For the trials the best size of a change is known: about $1.2\,|x| / n$ for each
# number. Descent has the rate $\frac12$. The gradient is $x$, so each step halves the
# distance to the minimum, and after four steps $f$ is 1/256 of what it was.
#
# **Predict.** Descent needs four steps for every $n$. By which factor does the number
# of trials grow if $n$ grows tenfold?


# %%
def trials_needed(key, n):
    """How many random changes until |x|² is a hundredth, kept only if they help."""

    def try_once(carry):
        x, count = carry
        noise = jax.random.normal(jax.random.fold_in(key, count), (n,))
        other = x + 1.2 * jnp.linalg.norm(x) / n * noise
        return jnp.where(jnp.sum(other**2) < jnp.sum(x**2), other, x), count + 1

    far = lambda carry: jnp.sum(carry[0] ** 2) > 0.01 * n
    return jax.lax.while_loop(far, try_once, (jnp.ones(n), 0))[1]


for n in (10, 100, 1000):
    print(
        f"n = {n:4}: {trials_needed(jax.random.key(0), n):6} trials, 4 steps of descent"
    )

# %% [markdown]
# **Seen.** About tenfold, too: `117`, `1074` and `11615` trials. The more numbers there
# are, the less a random change points downhill. The negative gradient always does, for
# the cost of a few evaluations. With a billion numbers that is the difference between
# learning and not learning, and the reason why the derivative is at the core of AI.

# %% [markdown]
# ## Exercises
#
# Predict first, here too.
#
# 1. **Shuffle the pixels.** Apply one permutation to the pixels of all pictures,
#    `x[:, order]` and `test_x[:, order]`, and learn again. How much worse does the
#    program read? (Not at all: the score is a sum, and a sum has no order. The program
#    never knew which pixels are neighbours.)
# 2. **The right size.** Which `SIZE` of the changes is best after 500 trials, and which
#    after 6000? Why does a large size stop helping? (Near the minimum nearly every
#    large change is a bad one.)
# 3. **Another measure of wrong.** Take half the squared distance between $p$ and the
#    right answer instead of $-\ln p_y$ (`losses.squared_error` with `jax.nn.one_hot`).
#    Which of the two learns faster at the same rate?
