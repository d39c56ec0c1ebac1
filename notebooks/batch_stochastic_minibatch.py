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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/descent/blob/main/notebooks/batch_stochastic_minibatch.ipynb)
#
# # Batch, stochastic or mini-batch gradient descent: which do I use, and why?
#
# They are **one rule**, $x \leftarrow x - \eta\, g$, fed by **three samplers**. Here
# $x$ are the parameters and $\eta$ is the rate. The gradient $g$ is taken over all
# examples (*full batch*), over one (*stochastic*), or over a few (*mini-batch*). You
# train the same model with all three, from the same start and with rates chosen in the
# same way. Then you look at how far each is from the exact minimum: once against
# **passes** over the data, once against **seconds**. The two pictures do not say the
# same.
#
# The lesson takes under a minute on two cores, without an accelerator. In Colab, run
# the next cell once (no restart is needed). If the package is already installed, skip
# the cell.

# %%
# %pip install --quiet git+https://github.com/OWNER/descent

# %% [markdown]
# ## The problem
#
# `configure` comes before the first computation: it turns on float64. In float32,
# rounding at about $10^{-7}$ would hide small differences from the minimum.

# %%
import research

research.backend.configure(x64=True)

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import research.figures.convergence

# %% [markdown]
# Logistic regression: is a tumour benign or malignant? There are 398 tumours to learn
# from, with 30 measurements each. The objective $f$ is the mean loss over these
# tumours, plus a small penalty on the weights. Its minimum $f^*$ is known up to
# rounding, from Newton's method. So we can draw $f - f^*$, the distance from the
# minimum.

# %%
workload = research.workloads.make_workload("breast_cancer")
n = len(workload.train.y)
print(f"{workload.name}: {n} examples, {workload.train.x.shape[1]} features, f* = {workload.optimum.value:.6f}")

# %% [markdown]
# ## One training, by hand
#
# An *epoch* goes through the examples once. A *sampler* says which examples make up
# each batch of an epoch. A *rule* turns a gradient into an update. `build` makes a step
# from the objective, the rule and the data. `run` repeats the step on the batches of
# the sampler. Change the sampler to `full_batch(n)` or `stochastic(n)`: no other line
# changes.

# %%
sampler = research.samplers.minibatch(n, 32)
rule = research.update_rules.gradient_descent(0.25)

init, step = research.descent.build(workload.objective, rule, workload.train)
state = init(workload.init(jax.random.key(0)))
state, info = research.descent.run(step, state, sampler, jax.random.key(1), jnp.arange(20))

print("f - f* after 20 passes:", float(workload.objective(state.params, workload.train) - workload.optimum.value))
print("accuracy on rows it has not seen:", float(workload.metric(state.params, workload.test)))

# %% [markdown]
# ## All three, fairly
#
# If somebody picks the rates, the choice may decide which of the three wins. So each
# gets its own rate: the one that does best on *tuning* seeds, which are then left out.
# (A seed sets the random start and the random batches of a training.)
# `practice_regimes` returns the three samplers, each with a ladder of rates. `measure`
# tries the rates of the ladder in this way, and trains the five reported seeds side by
# side. It also measures the time of one training alone, without the time to compile.

# %%
# Another rule: the last line of this cell prints the names.
RULE = "gradient_descent"  # @param {type: "string"}
BATCH_SIZE = 32  # @param {type: "integer"}
PASSES = 100  # @param {type: "integer"}
SEEDS, TUNING_SEEDS = range(5), range(100, 102)
print(*research.update_rules.UPDATE_RULES)


# %%
def measure(regime):
    """Chooses the rate for a sampler, then trains and times it."""
    return research.tuning.measure(
        workload,
        research.update_rules.find_rule(RULE),
        regime.sampler(n),
        PASSES,
        seeds=SEEDS,
        tuning_seeds=TUNING_SEEDS,
        ladder=regime.ladder(RULE),
    )


# %%
regimes = research.tuning.practice_regimes(BATCH_SIZE)
measured = {regime.name: measure(regime) for regime in regimes}


# %%
def seconds_per_pass(name):
    """Seconds for n example gradients.

    An epoch of mini-batches has fewer, because it leaves out the last n mod b examples.
    """
    timing, sampler = measured[name].timing, measured[name].program.sampler
    return timing.seconds_per_epoch * n / (sampler.num_batches * sampler.batch_size)


for name, found in measured.items():
    milliseconds = 1000 * seconds_per_pass(name)
    print(f"{name:14} rate {found.choice.rate:<8g} {milliseconds:.3f} ms a pass   f - f* at the end ", end="")
    print(f"{np.median(found.gaps[:, -1]):.1e}")


# %% [markdown]
# ## Against passes
#
# A pass is $n$ gradients of one example, however they are put into batches. A line is
# the median of the five seeds, and its band is a 95 % interval of the median.


# %%
def draw(unit, scale):
    """The median over the seeds of f - f*, with its 95 % interval; scale(name) is the length of a pass."""
    with research.figures.style():
        _, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
        curves = [
            research.figures.convergence.Curve(
                name, found.trained.passes * scale(name), found.gaps, research.figures.colour(name)
            )
            for name, found in measured.items()
        ]
        research.figures.convergence.draw_curves(axes, curves, x_label=unit, y_label="f - f*")
        axes.set_title(f"{RULE} on {workload.name}, against {unit}")
        axes.legend()
    plt.show()


draw("passes over the data", lambda name: 1)

# %% [markdown]
# **What to see.** The small batches are ahead at first: after one pass full batch has
# made one step, and the small batches have made many. Then they stop falling, and full
# batch goes on. At a fixed rate, the noise of the randomly chosen examples keeps them
# moving around the minimum. The gradient over all examples has no noise: it goes to 0
# near the minimum. Look at where the curves cross.

# %% [markdown]
# ## Against seconds
#
# The same trainings, with seconds instead of passes. The seconds depend on this machine
# and on what else runs on it.

# %%
draw("seconds", seconds_per_pass)

# %% [markdown]
# **What to see.** Full batch now overtakes much earlier. A pass of 398 single steps
# takes many times as long as one step on all 398 (the milliseconds above), because a
# processor is faster at one large product than at many small ones. The small batches
# are first to a rough answer, full batch to a good one. This order is not a law of
# nature: on a set as small as this, full batch needs only a few milliseconds. Try the
# large set in the exercises.

# %% [markdown]
# ## Your turn
#
# Choose the rule, the batch size and the rates. Here the examples of a batch are drawn
# *with replacement*: each is drawn from all examples, so one example may come twice.
# One compiled program serves all the rates and seeds. For each rate, the curve is the
# median over the seeds. The number in the legend says where it levels off: the mean
# over the seeds and the last third of the passes.

# %%
MY_RULE = "gradient_descent"  # @param {type: "string"}
MY_BATCH_SIZE = 32  # @param {type: "integer"}
MY_RATES = [0.25, 0.5, 2.0]

program = research.descent.compile_sweep(
    workload,
    research.update_rules.find_rule(MY_RULE),
    research.samplers.minibatch(n, MY_BATCH_SIZE, replacement=True),
    PASSES,
)

# %%
with research.figures.style():
    _, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for rate in MY_RATES:
        mine = research.descent.sweep(program, {"seed": list(SEEDS), "learning_rate": [rate] * len(SEEDS)})
        gaps = mine.values - workload.optimum.value
        rest = gaps[:, mine.passes > mine.passes[-1] * 2 / 3].mean()
        axes.loglog(mine.passes[1:], np.median(gaps, axis=0)[1:], label=f"rate {rate:g}: levels off at {rest:.1e}")
    axes.set(xlabel="passes over the data", ylabel="f - f*")
    axes.set_title(f"{MY_RULE}, batches of {MY_BATCH_SIZE} on {workload.name}")
    axes.legend()
plt.show()

# %% [markdown]
# ## Exercises
#
# 1. **Where does it stop?** Let $C$ be the covariance matrix of the gradients of single
#    examples at the minimum, and $\mathrm{tr}(C)$ the sum of its diagonal. Theory says:
#    with a constant rate $\eta$ and batches of $b$ examples, drawn with replacement,
#    the curve levels off near $\eta\,\mathrm{tr}(C) / 4b$, if $\eta$ is small. Halve
#    the rates above, or double the batch: does the level fall by half? At which rate is
#    theory wrong by a factor of two?
#    (`research.objectives.gradient_covariance_trace(workload.objective, workload.optimum.params, workload.train)`
#    is $\mathrm{tr}(C)$.)
# 2. **Another rule.** Set `RULE` to `"adam"` or `"heavy_ball"` and run from there on.
#    Which of the three samplers gains most from the change? Does the order against
#    seconds change, too?
# 3. **A large set.** Give `make_workload` the name `"overlapping_50k"`, set
#    `PASSES = 5`, and run all cells from there on (they take 1.5 times as long). Which
#    sampler is now the first to bring $f - f^*$ down to $10^{-2}$ of its initial value:
#    in passes, and in seconds? Why?
