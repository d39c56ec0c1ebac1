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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/descent/blob/main/notebooks/spoken_words.ipynb)
#
# # What does a recurrent network remember?
#
# A word is a sequence: what matters is what came **before** what. Here you make two
# words of the same frames (short pieces of sound), which differ only in the order of
# the frames. A model that ignores the order fails to distinguish them. A recurrent
# network reads them step by step, and you look at how far back its gradient reaches.
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
# `configure` comes before the first computation: it fixes precision and other settings
# on which results depend.

# %%
import research

research.backend.configure(x64=True)

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from research import datasets, descent, figures, losses, models, objectives, samplers, schedules, types
from research import update_rules as rules
from research.models.cells import CELLS
from research.models.recurrent_layer import draw_layer, unroll

# %% [markdown]
# ## A word as numbers
#
# The first word is half a second of a tone that rises from 300 to 1,500 Hz, with 8,000
# samples a second. `log_mel` cuts it into frames of 50 ms, one every 25 ms. For each
# frame it gives the logarithm of the energy in 20 bands of frequency. The second word
# has the same frames, the last one first.
#
# **Predict.** How many frames are there? (A frame has 400 samples, the next begins 200
# later, there are 4,000.)

# %%
time = np.arange(4000) / 8000
rising = np.sin(2 * np.pi * (300 * time + 1200 * time**2))
up = datasets.log_mel(rising, 8000, num_mels=20, window_seconds=0.05, hop_seconds=0.025)
down = up[::-1]  # The other word: the same frames, the last one first.
print("frames and bands:", up.shape)
with figures.style():
    _, panels = plt.subplots(1, 2, figsize=(7, 2.6), layout="constrained", sharey=True)
    for axes, word, name in zip(panels, (up, down), ("up", "down"), strict=True):
        axes.imshow(word.T, aspect="auto", origin="lower", cmap="Greys", vmin=-8)
        axes.set(title=name, xlabel="frame", ylabel="band")
        axes.grid(False)
plt.show()

# %% [markdown]
# **Seen.** `19` frames, 1 + (4,000 - 400) / 200. The dark ridge climbs in one word and
# falls in the other.

# %% [markdown]
# **Predict.** A model that ignores the order gets only the mean over the frames. By how
# much do the means of the two words differ?

# %%
print(f"largest difference of the words {np.abs(up - down).max():.0f}")
print(f"largest difference of their means {np.abs(up.mean(axis=0) - down.mean(axis=0)).max():.1f}")

# %% [markdown]
# **Seen.** By `0.0`, although the words differ much from frame to frame. From the
# means, a model can only guess the word.

# %% [markdown]
# ## One step after the other
#
# A recurrent network keeps a vector $h$ and changes it at each step: $h_t =
# \mathrm{cell}(x_t, h_{t-1})$, from $h_0 = 0$. Here $x_t$ is a frame, and the cell is a
# GRU (gated recurrent unit): its gates, numbers between 0 and 1, decide how much of $h$
# is replaced. From each $h_t$ a linear layer computes the output, here two scores, one
# for each word.
#
# `recurrence` returns this network, so that you can feed a word frame by frame. Its
# function `start` gives $h_0$. Its function `advance` reads one or more frames, and
# returns the outputs and the last $h$.
#
# **Predict.** Read the word at once, and again frame by frame. Is the last output the
# same?

# %%
network = models.recurrence(20, 8, 2, cell="gru")
params = network.init(jax.random.key(0))
whole, _ = network.advance(params, up, network.start(()))
carry = network.start(())
for frame in up:
    output, carry = network.advance(params, frame[None], carry)
print("the same, to rounding:", bool(np.abs(output[-1] - whole[-1]).max() < 1e-9))

# %% [markdown]
# **Seen.** `True`: all that the network knows of the past is in `carry`, the vector
# $h$.

# %% [markdown]
# Words have different lengths, but an array has one. So the words are padded to one
# length. `Sequences` holds the padded words, and says where each ends. `recurrent` is
# the same network, but returns only the output at the end of the word.
#
# **Predict.** Put NaN, which spoils whatever it is added to, after the end of a word.
# Is the gradient still the same as with zeros there?

# %%
model = models.recurrent(20, 8, 2, cell="gru")


def loss_of(params, filling):
    """The loss of the first twelve frames, with something after them."""
    values = np.where(np.arange(19)[:, None] < 12, up, filling)
    return losses.softmax_cross_entropy(model.apply(params, types.Sequences(values, np.int32(12))), 0)


clean, spoilt = (jax.tree.leaves(jax.grad(loss_of)(params, filling)) for filling in (0.0, np.nan))
print("equal to the last bit:", all(np.array_equal(a, b) for a, b in zip(clean, spoilt, strict=True)))

# %% [markdown]
# **Seen.** `True`: what stands after the end does not change the gradient, not by one
# bit.

# %% [markdown]
# ## It learns the order
#
# Now the two words with noise: a hundred for the training and a hundred others for the
# test. Half of them are `up`, half `down`, and all have 19 frames. A GRU reads one frame after
# another. Softmax regression, a single linear layer that gives the two scores, gets
# only the mean over the frames.
#
# **Predict.** What is the accuracy of the GRU on the test words? And of softmax
# regression on their means?


# %%
def say(seed):
    """A hundred words of 19 frames, standardised, each with noise of its own."""
    generator, y = np.random.default_rng(seed), np.arange(100) % 2
    values = np.stack([up, down])[y] + generator.normal(size=(100, 19, 20))
    values = ((values - up.mean()) / up.std()).astype(np.float32)
    return types.Batch(types.Sequences(values, np.full(100, 19)), y)


def fit(model, x_of):
    """The accuracy on other words than those it was trained on."""
    train, test = (batch._replace(x=x_of(batch.x)) for batch in (say(0), say(1)))
    risk = objectives.empirical_risk(model, losses.softmax_cross_entropy)
    sampler, start = samplers.minibatch(100, 20), model.init(jax.random.key(0))
    rule = rules.adam(schedules.one_cycle(1e-2, 20 * sampler.num_batches))
    trained = descent.train(risk, rule, train, sampler, num_epochs=20, params=start, key=jax.random.key(1))
    return float(objectives.accuracy(model)(trained.params, test))


print(f"GRU {fit(models.recurrent(20, 8, 2, cell='gru', dtype='float32'), lambda x: x):.2f}")
print(f"means {fit(models.softmax(20, 2, dtype='float32'), lambda x: x.values.mean(axis=1)):.2f}")

# %% [markdown]
# **Seen.** The GRU gets all of them right, `1.00`. Softmax regression on the means only
# guesses: it is right in about one half.

# %% [markdown]
# ## How far back does the gradient reach?
#
# Now the input is sixty steps of random numbers. Let the sum of the last $h$ be the
# loss, and ask how much the input of each step could change it. The answer is the norm
# of $\partial \sum h_{60} / \partial x_t$. The chain rule multiplies as many factors as
# there are steps in between.
#
# Compare two other cells. In the vanilla network, $h_t$ is the tanh of a weighted sum
# of $x_t$ and $h_{t-1}$. The LSTM (long short-term memory) has a second vector beside
# $h$, its cell state, to which it adds in each step. Before that, its forget gate
# multiplies the cell state by about $\sigma(b)$, where $\sigma(b) = 1 / (1 + e^{-b})$.
# $b$ is the bias of this gate; it is 1 at the start of a training.
#
# **Predict.** Draw the norm against $t$. Which remembers the first step: the vanilla
# network, the LSTM with $b = 1$, or the LSTM with $b = 5$?

# %%
x = jax.random.normal(jax.random.key(2), (60, 1, 4))


def reach(cell, bias=None, window=None):
    """The norm of the gradient of the last h by the input of each step."""
    layer = draw_layer(jax.random.key(3), cell, 4, 16, float)
    if bias is not None:
        layer["input"]["bias"] = layer["input"]["bias"].at[16:32].set(bias)
    start = (jnp.zeros((1, 16)),) * cell.num_carried
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(unroll(cell, layer, x, start, window)[0][-1])))(x)
    return np.linalg.norm(gradient[:, 0], axis=-1)


kinds = {"vanilla": ("vanilla", None), "LSTM, b = 1": ("lstm", 1.0), "LSTM, b = 5": ("lstm", 5.0)}
with figures.style():
    _, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for (label, (name, bias)), colour in zip(kinds.items(), ("stochastic", "full batch", "mini-batch"), strict=True):
        axes.semilogy(np.arange(1, 61), reach(CELLS[name], bias), color=figures.COLOURS[colour], label=label)
    axes.set(xlabel="step t", ylabel="norm of the gradient by its input")
    axes.legend()
plt.show()
first = {label: reach(CELLS[name], bias)[0] for label, (name, bias) in kinds.items()}
ratio = first["LSTM, b = 5"] / first["LSTM, b = 1"]
print("at the first step, the gradient with b = 5 is more than a thousand times that")
print("with b = 1:", bool(ratio > 1e3))

# %% [markdown]
# **Seen.** `True`. Both the vanilla network and the LSTM with $b = 1$ forget: on this
# logarithmic scale the gradient falls, from right to left, about as a straight line.
# That is nearly the same factor at each step, and sixty such factors leave little of
# the first step. With $b = 5$ the gate is open: the cell state is multiplied by
# $\sigma(5) = 0.993$, and the first step counts about as much as the last.

# %% [markdown]
# The gradient of a long sequence needs the intermediate results of all its steps in
# memory. `window=20` cuts the sequence into windows of 20 steps: no gradient flows from
# step 21 to 20, nor from 41 to 40.
#
# **Predict.** How large is the gradient at step 40 now, and at step 41?

# %%
cut, full = (reach(CELLS["lstm"], 1.0, window) for window in (20, None))
print(f"at step 40: {cut[39]:.1f}; at step 41 as without a window: {bool(np.isclose(cut[40], full[40]))}")

# %% [markdown]
# **Seen.** `0.0` before the cut, exactly, and unchanged after it. That is *truncated
# backpropagation*: a long sequence costs only the memory of one window, but the network
# does not learn from what lies further back.

# %% [markdown]
# ## Exercises
#
# `python experiments/spoken_words.py` uses real speech. It asks who spoke, which digit
# was spoken, and whether the network understands a voice that was not in the training.
#
# 1. **Cut words.** In `say`, give each word a length of its own,
#    `generator.integers(12, 20, 100)`, and take the mean of the frames before its end.
#    Does softmax regression still guess? (No, its accuracy is 0.97: the missing frames
#    are high in `up` and low in `down`.)
# 2. **Backwards.** Does a network that reads `up` from the end learn anything else?
#    (No: it reads `down`. Two networks, one from each end, know at each step what comes
#    before and what comes after.)
# 3. **Forget at once.** Set the bias to $b = -5$. How far back does the gradient reach?
#    (A few steps: the factor is below 0.01.)
