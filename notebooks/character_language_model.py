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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/descent/blob/main/notebooks/character_language_model.ipynb)
#
# # What does attention see that counting cannot?
#
# A language model guesses the next character. The oldest way is to **count**: after
# these five letters, how often did each letter come? On a million characters of
# Shakespeare counting is hard to beat (the experiment `character_language_model`
# measures it). Here you write a text with one property that counting cannot learn,
# train a small **Transformer** on it, and look at where it looks.
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

from research import datasets, descent, figures, models, samplers, update_rules
from research.types import Batch

# %% [markdown]
# ## A text with a memory
#
# Each line is a capital letter out of eight, ten small ones out of four, the sign `=`,
# and **the same capital again**: `Cdabca...=C`. The capital and the first small letter
# are drawn with equal probabilities. Each further small letter depends on the one
# before. In seven of ten cases it is the next letter (after d comes a). Each of the
# other three letters comes in one of ten cases.
#
# **Predict.** The cost of a character is $-\log$ of the probability that the model gave
# it. The logarithm is the natural one, so the unit is called *nat*. For a model that
# knows all this, what does the first capital cost? And the last one?

# %%
LINE = 14  # Characters: 1 + 10 + 1 + 1, and the line break.
rng = np.random.default_rng(0)


def write_line():
    """One line."""
    name, small = rng.integers(8), [rng.integers(4)]
    for _ in range(9):
        small.append((small[-1] + rng.choice(4, p=[0.1, 0.7, 0.1, 0.1])) % 4)
    return "ABCDEFGH"[name] + "".join("abcd"[letter] for letter in small) + "=" + "ABCDEFGH"[name] + "\n"


text = datasets.texts.as_text("lines", "".join(write_line() for _ in range(4000)), claim=False)
train, held_out = text.tokens[: 3000 * LINE], text.tokens[3000 * LINE :]
print(text.characters[: 3 * LINE])
odds = np.array([0.1, 0.7, 0.1, 0.1])
step = -odds @ np.log(odds)
least = (np.log(8) + np.log(4) + 9 * step) / LINE
print(f"first capital {np.log(8):.3f}   first small {np.log(4):.3f}   other small {step:.3f}   sign, last capital 0")
print(f"least cost of a character, on average {least:.3f}")

# %% [markdown]
# **Seen.** The first capital costs log 8 = `2.079`, because nothing predicts it. The
# last costs `0`, because the first predicts it. No model can get below `0.852` nats a
# character on average. That is the entropy of the text, and here it is known exactly.

# %% [markdown]
# ## Counting
#
# An n-gram model, `ngram`, counts how often each character followed each context of
# $n - 1$ characters. It mixes in the counts of shorter contexts, more strongly where
# the longer context was rare.
#
# **Predict.** Which n costs least on new lines: 1, 2, 3, 4, 6, 9 or 13? When a 13-gram
# guesses the last capital, the first one is in its context. Does it know the last one?

# %%
size = len(text.symbols)
costs = {n: models.ngram_losses(models.ngram(train, n, size), held_out) for n in (1, 2, 3, 4, 6, 9, 13)}
for n, found in costs.items():
    place = found.reshape(-1, LINE).mean(axis=0)
    print(f"{n:2}-gram   {found.mean():.3f} nats a character   last capital {place[12]:.3f}")

# %% [markdown]
# **Seen.** The 3-gram is the best, `1.225`, far from the least. Two characters tell the
# two capitals of a line apart: after "=C" the line ends, after a line break and "C" a
# small letter comes. None knows the last capital: it costs `2.084` or more, as if it
# did not depend on the first. The 13-gram has the first one in its context, but
# together with the ten letters between. There are a million such sequences, so next to
# none of its contexts occurred in the training text. Nor can counting tell when the ten
# letters are over: a short context does not reach the start of the line, and a long one
# is too rare. So at each small letter an n-gram also expects the sign, and the letter
# costs more.

# %% [markdown]
# ## Learning
#
# A *Transformer* of one layer: each place of a line looks at itself and at all places
# before it. Its *attention* is a weighted mean over these places. The weights depend on
# the characters and on where they stand; *what* a place looks for is learnt. Our model
# has two such attentions, called *heads*. From what a place has seen, it guesses the
# next character. A batch is 32 lines.
#
# **Predict.** How many batches will it take to know the last capital? Will its cost
# fall evenly?

# %%
model = models.transformer_decoder(size, LINE - 1, width=32, num_layers=1, num_heads=2, dtype="float32")
risk = models.next_token_risk(model, train, LINE - 1)
read = models.reader(model, held_out, LINE - 1)
lines = datasets.window_starts(len(train), LINE - 1, stride=LINE)
held_out_lines = datasets.window_starts(len(held_out), LINE - 1, stride=LINE)


def place_costs(params):
    """What each place of a line costs."""
    cost = read(params, held_out_lines).mean(axis=0)
    return {"small letters": cost[1:10].mean(), "last capital": cost[11], "whole line": cost.mean()}


key_init, key_order = (jax.random.fold_in(jax.random.key(0), child) for child in range(2))
order = samplers.Sampler(10, 32, lambda key: jax.random.randint(key, (10, 32), 0, len(lines), dtype="int32"))
trained = descent.train(
    risk, update_rules.adam(1e-2), Batch(lines, lines), order,
    num_epochs=60, params=model.init(key_init), key=key_order, evaluate=place_costs,
)  # fmt: skip
for name, curve in trained.evaluations.items():
    print(f"{name:14}" + "".join(f"   {curve[k]:.2f} after {10 * k}" for k in (0, 5, 10, 20, 60)))

# %% [markdown]
# **Seen.** At the start everything costs about log 14, as if all 14 symbols were
# equally likely. The small letters are at their least, `0.94`, after 50 batches, when
# the last capital still costs `2.08`, as if it did not depend on the first. Then it
# falls, to `0.00`. A line (its first capital is given here, not guessed) costs `0.76` a
# character on average: (14 · 0.852 - 2.079) / 13, the least there is.

# %% [markdown]
# The next cell draws both costs against the number of batches.
#
# **Predict.** Which part is learnt first: the small letters, which a table of pairs (a
# 2-gram) knows too, or the last capital, which it cannot know?

# %%
with figures.style():
    _, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, colour in (("small letters", "full batch"), ("last capital", "stochastic")):
        axes.plot(10 * np.arange(61), trained.evaluations[name], color=figures.COLOURS[colour], label=name)
    for cost, name in ((np.log(8), "8 capitals alike"), (step, "least for small letters")):
        axes.axhline(cost, color=figures.COLOURS["exact"], lw=1, ls="--")
        axes.text(600, cost + 0.03, name, ha="right", va="bottom", fontsize=9)
    axes.set(
        xlabel="batches of 32 lines", ylabel="nats a character", title="pairs first, then memory", ylim=(-0.05, 2.9)
    )
    axes.legend(loc="upper right")
plt.show()
print({name: f"{curve[-1]:.2f}" for name, curve in trained.evaluations.items()})

# %% [markdown]
# **Seen.** The pairs, in a few batches. For about eighty batches the curve of the last
# capital stays on its plateau and looks finished. Then it falls in two drops. The loss
# of the whole line, `0.76`, would have shown little of this: the last capital is one
# character of thirteen.

# %% [markdown]
# ## Where it looks
#
# At the sign, the next character is the last capital. `attention_weights` tells how
# much each place looks at each other. In the pictures, a row is the place that looks,
# and a column is the place that it looks at. Dark is a large weight.
#
# **Predict.** In `Cdabcabcdab=`, what will the sign look at?

# %%
line = "Cdabcabcdab="
tokens = jnp.array([text.symbols.index(character) for character in line])
params = trained.params
vectors = params["tokens"]["weights"][tokens] + params["positions"]["weights"][: len(line)]
first = params["block_1"]["normalisation_1"]
entering = models.layer_normalisation(vectors, first["scale"], first["bias"])
looks = models.attention_weights(params["block_1"]["attention"], entering, models.causal_mask(len(line)), num_heads=2)
with figures.style():
    _, panels = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
    for head, axes in enumerate(panels):
        axes.imshow(looks[head], cmap="Greys", vmin=0, vmax=1)
        axes.set(title=f"head {head + 1}", xlabel="looks at", ylabel="place")
        axes.set_xticks(range(12), line)
        axes.set_yticks(range(12), line)
        axes.grid(False)
plt.show()
print("the sign at the capital:", looks[:, -1, 0].round(2))

# %% [markdown]
# **Seen.** At the capital, eleven places back (last row): one head, at least, looks
# there and hardly anywhere else, with a weight near one. Nobody told it to. The other
# places look here and there. To guess the next small letter, a place needs only its own
# letter. It has that letter already, so it need not look anywhere.

# %% [markdown]
# ## Writing
#
# **Predict.** Let it write a line of its own after an `E`, and another after a `B`. Do
# they end as they should?

# %%
for name in "EB":
    drawn = models.generate(
        model, trained.params, jax.random.key(1), [text.symbols.index(name)], LINE - 2, context=LINE - 1
    )
    print(name + "".join(text.symbols[token] for token in drawn))

# %% [markdown]
# **Seen.** They do: the one ends in =E, the other in =B, after ten small letters, most
# of them in the order of the alphabet.

# %% [markdown]
# ## Exercises
#
# Predict first, here too.
#
# 1. **Let counting win.** Make the lines short: `LINE = 6`, `range(1)` for `range(9)`,
#    orders 1 to 5, and look at place 4. Which n is now the best, and what does the last
#    capital cost? (The 5-gram: 0.10. There are only 128 contexts.)
# 2. **Another memory.** A recurrent network reads from left to right and carries a
#    state from place to place. Put `models.recurrent(size, 32, size, cell="vanilla",
#    outputs="every", embedding=32, dtype="float32")` in the Transformer's place, then
#    with `cell="gru"`. Which of them carries the capital through ten letters? (After
#    600 batches the GRU, 0.01; the vanilla cell hardly, 1.98.)
# 3. **Windows from anywhere.** Let the training windows, `lines`, start at any
#    character: `stride=1`. Why is the last capital not learnt any more? (It costs 2.11:
#    the capital is no longer always at the first place, and one layer that knows places
#    by heart does not find it in 600 batches. Do two layers find it, or more batches?)
