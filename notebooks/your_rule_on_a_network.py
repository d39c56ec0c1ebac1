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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/descent/blob/main/notebooks/your_rule_on_a_network.ipynb)
#
# # Your rule on a network: does it train one better than Adam?
#
# Here you write an update rule in ten lines, train a network with it by hand, and then
# let `compare_networks` ask whether it is better than Adam. Both rules are tuned by the
# same number of independent searches for a learning rate, and in every training the
# rate falls to zero at the end. A training depends on a random seed. The rules are
# compared on seeds that were not used for tuning, and the answer has an interval. At
# the end, put a rule of your own in the place of this one and run everything again.
#
# Each piece of code comes with a question. **Answer it before you run the code**: on
# paper, with a number. The text after the code says what you should have seen.
#
# The lesson takes under five minutes on two cores, without an accelerator. In Colab,
# run the next cell once (no restart is needed). If the package is already installed,
# skip the cell.

# %%
# %pip install --quiet git+https://github.com/OWNER/descent

# %% [markdown]
# `configure` comes before the first computation: it turns on float64. The network
# itself is in float32, as networks are. The cell after it makes the network, and
# `by_hand`, which trains it once with each of several learning rates.

# %%
import research

research.backend.configure(x64=True)

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import research.comparison.networks
import research.figures.network_studies
import research.workloads.networks
from research import comparison, figures, tuning

network = research.workloads.networks.make_network("mlp_digits")


def by_hand(make, rates, seed=0):
    """Validation loss after each epoch of one training for each rate, shape (rates, epochs + 1)."""
    sampler = research.samplers.minibatch(network.num_examples, network.batch_size)
    program = research.descent.compile_sweep(
        network.workload, make, sampler, network.num_epochs, evaluate_on=("validation",)
    )
    return research.descent.sweep(program, {"seed": [seed] * len(rates), "learning_rate": rates}).values


# %% [markdown]
# ## A rule
#
# The idea: the arrays of parameters of a network (the weights and the bias of each
# layer) have gradients of very different sizes. Why not average the gradient of each
# array over the steps, and divide the average by its root mean square? In each step,
# every array then moves equally far. In the formula, $\theta$ is one array of
# parameters, $g_t$ its gradient in step $t$, and $\eta$ the learning rate. $\beta$ (in
# the code `decay`, 0.9) says how slowly the average changes, from $m_0 = 0$. The mean
# is over the entries of the array:
#
# $$m_t = \beta\, m_{t-1} + (1 - \beta)\, g_t \qquad
# \theta_t = \theta_{t-1} - \eta\, \frac{m_t}{\sqrt{\mathrm{mean}(m_t^2)}}$$
#
# In optax a rule is two functions: `init(params)` returns the first state.
# `update(gradients, state)` returns the update, which is added to the params, and the
# next state. JAX calls each array of the parameters a *leaf*.
#
# **Predict.** The parameters are one array of two numbers. The first gradient is
# $(3, -4)$, the rate 0.1. What is the first step?


# %%
def mine(learning_rate=0.01, decay=0.9):
    """An average of gradients, scaled to the same root mean square in each leaf."""

    def update(gradients, average, params=None):
        average = jax.tree.map(lambda m, g: decay * m + (1 - decay) * g, average, gradients)
        rms = lambda m: jnp.sqrt(jnp.mean(m**2) + 1e-16)
        return jax.tree.map(lambda m: -learning_rate * m / rms(m), average), average

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


rule = mine(0.1)
step, state = rule.update(jnp.array([3.0, -4.0]), rule.init(jnp.zeros(2)))
print("first step:", np.asarray(step).round(4))

# %% [markdown]
# **Seen.** `[-0.0849  0.1131]`: the direction of the negative gradient, with a root
# mean square of 0.1.

# %% [markdown]
# ## By hand
#
# A network of 64 hidden units learns to read digits of 8 by 8 pixels: batches of 32,
# twenty epochs, one seed. Each rule trains it with four constant rates: 0.0003, 0.001,
# 0.003 and 0.01. What counts is the loss on the validation part, images that are not
# used for the training.
#
# **Predict.** With which of the four rates does yours end lowest, and with which Adam?

# %%
rates = [0.0003, 0.001, 0.003, 0.01]
with figures.style():
    _, panels = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
    for panel, (name, make) in zip(panels, {"mine": mine, "adam": optax.adam}.items(), strict=True):
        curves = by_hand(make, rates)
        for curve, rate in zip(curves, rates, strict=True):
            panel.semilogy(curve, label=f"{rate:g}")
        panel.set(title=name, xlabel="epoch")
        print(f"{name} ends at", ", ".join(f"{loss:.3f}" for loss in curves[:, -1]))
    panels[0].set_ylabel("validation loss")
    panels[1].legend(title="rate")
plt.show()

# %% [markdown]
# **Seen.** Yours ends lowest at the lowest rate, with `0.078`, and hardly higher at the
# next two. Adam ends lowest at 0.003, with `0.048`: by hand, Adam is far better. But
# the comparison is not fair: the rates are those that suit Adam, they do not fall, and
# there is one seed.

# %% [markdown]
# ## Asked honestly
#
# Now each rule has three independent searches for its rate. A search tries six rates,
# runs the better ones on more seeds and tries rates near the best. In every training
# the rate rises at first (it *warms up*) and then falls to zero at the end, because the
# ranking of rules can change while the rate falls. With the rate that a search chooses,
# the network is trained on five other seeds, and only these trainings are reported. The
# score is the validation loss at the end. Adam is also trained with half to twice the
# steps. This shows how many steps Adam needs for the loss of your rule.
#
# The answer is a ratio with an interval: the loss of your rule, divided by the loss of
# Adam.
#
# **Predict.** Will the interval contain 1, so that no difference is shown?

# %%
terms = {"searches": 3, "budget": 6, "seeds": 5, "tuning_seeds": 6, "search_schedule": False, "timed": False}
spaces = {"mine": {"learning_rate": tuning.Range(1e-4, 1e-1)}}
study = comparison.compare_networks({"mine": mine, "adam": "adam"}, network, spaces=spaces, **terms)
print(study.answer)

# %% [markdown]
# **Seen.** By hand, Adam was far better. Here it is not: your rule takes steps of one
# size, so it needs a rate that falls. The interval takes into account that other
# searches and other seeds would give other numbers. Whether it contains 1 depends on
# the machine, because processors round differently and small differences grow in a
# training: on one machine we got 0.97 [0.68, 1.4], on another 0.87 [0.77, 0.99]. The
# sentence on the smallest factor says how large a difference must be for this study to
# detect it. Ask again with more searches before you publish an answer.

# %% [markdown]
# ## What the searches found
#
# Each search chose a rate. The code also prints the RMS (root mean square) of a rule's
# updates, the typical size of its steps.
#
# **Predict.** By which factor do the rates differ that the three searches of a rule
# chose?

# %%
for name in ("mine", "adam"):
    chosen = study.arrays[f"mlp_digits/{name}/chosen"][:, 0]
    logs = study.arrays[f"mlp_digits/{name}/logs"]
    print(f"{name}: rates {chosen.round(5)}, mean losses {np.exp(logs.mean(axis=1)).round(4)}")
cells = {cell["rule"]: cell for cell in study.numbers["cells"]}
for name, cell in cells.items():
    print(f"{name}: test accuracy {100 * cell['accuracy']:.1f} %, RMS of its updates {cell['update_rms']:.2g}")
with figures.style():
    pictures = figures.network_studies.draw_network_study(study.numbers, study.arrays)
pictures["curves"].figure

# %% [markdown]
# **Seen.** The rates that the searches chose for your rule are far above the best rate
# by hand, because the rate falls during the training. The rates of a rule may differ by
# a factor of two or more, with nearly the same loss. The test accuracy says nothing
# about which rule is better: it is only reported. The test part has 270 images, so one
# image changes the accuracy of a training by 0.4 percentage points.

# %% [markdown]
# ## Send it
#
# `save` writes the study to a folder, `pack` makes one file of it, and `read_study`
# reads such a file.
#
# **Predict.** What must a file contain, so that somebody else can check your answer?

# %%
folder = study.save()
print(*sorted(path.name for path in folder.glob("[!.]*")))
packed = research.runs.pack(folder, "mine_on_a_network.zip")
read = comparison.read_study(packed)
print(read.name, read.manifest["status"], *(entry["rules"] for entry in read.numbers["origin"]["code"]))

# %% [markdown]
# **Seen.** Three plain files hold the study: `manifest.json`, `result.json` and
# `arrays.npz`. The pictures and `report.html` are made from them. The packed file has
# the three and the report. It also holds the source of `mine`, which is shown and never
# run. The command *leaderboard* ranks your file beside others.

# %% [markdown]
# ## Exercises
#
# Predict first, here too.
#
# 1. **Your own rule.** Put it in the place of `mine`. Its first argument must be the
#    learning rate.
# 2. **Another network.** Ask again with `"cnn_digits"` or `"autoencoder_digits"` in the
#    place of `network`. Does the answer stay? (One network is one network. A rule that
#    wins on one may lose on the next.)
# 3. **Your own data.** `research.workloads.networks.network_workload` makes a network
#    from a model, a loss and arrays for training and validation. How many lines does
#    yours need?
