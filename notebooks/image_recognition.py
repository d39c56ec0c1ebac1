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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/descent/blob/main/notebooks/image_recognition.ipynb)
#
# # What does a convolution see?
#
# A linear model has one weight for each pixel and class. A convolutional network has
# small filters that look for the same thing **everywhere**. Here you train both to read
# digits, look at what they have learnt, move the digits by one pixel, and train the
# network to recognise moved digits.
#
# Each piece of code comes with a question. **Answer it before you run the code**: on
# paper, with a number. The text after the code says what you should have seen.
#
# The lesson takes about half a minute on two cores, without an accelerator. In Colab,
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
from sklearn.metrics import confusion_matrix

from research import datasets, descent, figures, losses, models, objectives, samplers, schedules, types
from research import update_rules as rules
from research.figures import confusion, images

# %% [markdown]
# ## The pictures
#
# scikit-learn brings 1,797 small grey pictures of digits. Grey means one *channel*: one
# number, the brightness, for each pixel. The last fifth is for the test alone.
#
# **Predict.** They have 8 by 8 pixels. What is the shape of an array of 1,437 of them?

# %%
split = datasets.images("digits")
train, test = types.Batch(split.train_x, split.train_y), types.Batch(split.test_x, split.test_y)
print("learn from", train.x.shape, "test with", test.x.shape, "kept as", train.x.dtype)
with figures.style():
    _, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
    images.draw_images(axes, train.x[:16] * np.uint8(15), [split.classes[label] for label in train.y[:16]], columns=8)
plt.show()

# %% [markdown]
# **Seen.** `(1437, 8, 8, 1)`: number, height, width, channels. A photograph would have three channels. The pixels stay
# bytes, `uint8`, until a batch of them is on the device.

# %% [markdown]
# ## The baseline: one weight for each pixel and class
#
# Softmax regression gives each class a score: the sum of the pixels, each times a
# weight of this class, plus an intercept. The largest score wins.
#
# **Predict.** How many numbers does it have to learn, for 64 pixels and 10 classes?

# %%
mean, sd = models.mean_and_sd(train.x)


def of_pixels(model):
    """Return a model of pictures that reads their pixels as a vector."""
    return types.Model(model.init, lambda params, x, key=None: model.apply(params, x.reshape(*x.shape[:-3], -1)))


linear = models.on_images(of_pixels(models.softmax(64, 10, dtype="float32")), mean, sd, dtype="float32")
start = linear.init(jax.random.key(0))
print({name: leaf.shape for name, leaf in start.items()}, models.count_parameters(start))

# %% [markdown]
# **Seen.** `650`: 64 weights for each of the 10 classes, and one intercept each.

# %% [markdown]
# Now train it: Adam, whose rate rises and falls once, on batches of 32.
#
# **Predict.** Guessing is right once in ten times. What share of the test pictures does a linear model get right?


# %%
def fit(model, num_epochs, noisy=False):
    """Train a model of pictures. Return its parameters and its accuracy on the test pictures."""
    sampler = samplers.minibatch(len(train.y), 32)
    rule = rules.adam(schedules.one_cycle(1e-2, num_epochs * sampler.num_batches))
    risk = objectives.empirical_risk(model, losses.softmax_cross_entropy)
    params, keys = model.init(jax.random.key(0)), jax.random.key(1)
    trained = descent.train(risk, rule, train, sampler, num_epochs=num_epochs, params=params, key=keys, noisy=noisy)
    return trained.params, score(model, trained.params, test.x)


def score(model, params, x):
    """Return the share of recognised pictures. `x` has the test digits, moved or not."""
    return float(jax.jit(objectives.accuracy(model))(params, types.Batch(x, test.y)))


linear_params, found = fit(linear, 10)
print(f"{found:.3f} of the test pictures, guessing {1 / 10}")

# %% [markdown]
# **Seen.** Nine of ten, far more than `0.1`.

# %% [markdown]
# ## What it has learnt
#
# Its weights can be laid out as the pixels are, in one picture for each class. Blue
# means that a bright pixel speaks for the class, red that it speaks against it, and
# white that it says nothing.
#
# **Predict.** What is in the middle of the picture of 0: blue, white or red?

# %%
pictures = linear_params["weights"].T.reshape(10, 8, 8, 1)
with figures.style():
    _, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    images.draw_filters(axes, pictures, split.classes, columns=5)
plt.show()
centre = pictures[0, 3:5, 3:5].mean()
print("the middle of 0 is", "blue" if centre > 0 else "red")

# %% [markdown]
# **Seen.** `red`: a bright pixel there is evidence *against* a 0. Each pixel has its
# own weight, and nothing says that a stroke is the same stroke one pixel further.

# %% [markdown]
# ## A filter looks everywhere
#
# A convolution slides one small filter over the picture: at every place it multiplies
# the pixels under it by its weights, and adds up. This one has three weights in a row:
# -1, 0 and 1.
#
# **Predict.** Each row of the picture has six pixels: three are 0, dark, on the left,
# and three are 1, bright, on the right. So the filter fits in at four places. What is
# the outcome at each of them?

# %%
picture = jnp.zeros((4, 6, 1)).at[:, 3:].set(1.0)
edge = jnp.array([[-1.0, 0.0, 1.0]]).reshape(1, 3, 1, 1)
seen = models.convolution(picture, edge, jnp.zeros(1), padding="valid")
print("picture", picture[0, :, 0].astype(int), "outcome", seen[0, :, 0].astype(int))

# %% [markdown]
# **Seen.** `[0 1 1 0]`: only around the edge, wherever that is. Three weights have searched the whole picture.

# %% [markdown]
# ## The network
#
# Two convolutions with filters of 3 by 3, each followed by pooling, which takes the
# largest value of 2 by 2 places. A convolution keeps the height and the width here,
# and pooling halves them. Then come two dense layers, with 32 units and ten classes.
#
# **Predict.** How many weights has the first convolution, with 8 filters? The second
# one has 16. And which layer has the most?

# %%
network = models.cnn((8, 8, 1), 10, channels=(8, 16), hidden=(32,), dtype="float32")
network = models.on_images(network, mean, sd, dtype="float32")
for row in models.list_parameters(network.init(jax.random.key(0))):
    print(row)
network_params, found = fit(network, 10)
print(f"{found:.3f} of the test pictures")

# %% [markdown]
# **Seen.** The first convolution has only `72` weights, 3 · 3 · 8. The first dense
# layer has the most, `2048`: each of its 32 units has a weight for each of 2 · 2 · 16
# values. The network makes fewer errors than the linear model.

# %% [markdown]
# ## One pixel to the right
#
# **Predict.** Move all test pictures by one pixel. You would hardly see it. How many
# does the linear model still get right? And the network, whose filters look everywhere?

# %%
moved = np.roll(test.x, 1, axis=2)
moved[:, :, 0] = 0
for name, model, params in (("linear", linear, linear_params), ("network", network, network_params)):
    before, after = score(model, params, test.x), score(model, params, moved)
    share = "more" if before - after > 0.2 else "less"
    print(f"{name}: {before:.3f} as they are, {after:.3f} moved; it loses {share} than a fifth")

# %% [markdown]
# **Seen.** Both lose `more` than a fifth of all pictures. The filters look everywhere,
# but the dense layers after them have a weight for each *place* in which a filter may
# have found something. So convolutions are not enough: the answer still depends on
# where things are.

# %% [markdown]
# ## Train it on moved digits
#
# `augmented` moves each picture at random, up to one pixel each way, while the network
# learns and never during the test. The random shift uses a JAX key that belongs to the
# batch, so that a run can be repeated to the last bit.
#
# **Predict.** Will it now be as good on moved pictures as on the others? And does that
# cost it anything on the others?

# %%
taught = models.augmented(network, models.random_shift(1))
taught_params, found = fit(taught, 20, noisy=True)
gap = found - score(taught, taught_params, moved)
print(f"{found:.3f} as they are; moved, it loses {'little' if gap < 0.1 else 'much'}: {gap:.3f}")

# %% [markdown]
# **Seen.** Moved, it loses `little`. For the cost on the others, compare the first
# number with that of the network above (which had half as many epochs). A model can
# learn from examples to ignore a shift. It need not be built into the model.

# %% [markdown]
# ## Its errors
#
# The *confusion matrix* counts the test pictures: the row is the true digit, the column
# is the answer of the network. Right answers are on the diagonal.
#
# **Predict.** Which digits will it confuse? Look for the largest number off the
# diagonal.

# %%
predicted = np.asarray(jax.jit(taught.apply)(taught_params, test.x).argmax(axis=1))
counts = confusion_matrix(test.y, predicted)
with figures.style():
    _, axes = plt.subplots(figsize=(5.4, 4.8), layout="constrained")
    confusion.draw_confusion(axes, counts, split.classes)
plt.show()
print("more than 330 of", counts.sum(), "are on the diagonal:", bool(np.trace(counts) > 330))

# %% [markdown]
# **Seen.** More than 330 of `360` are on the diagonal. The rest are few enough to be
# looked at, one by one.

# %% [markdown]
# ## Exercises
#
# Predict first, here too.
#
# 1. **Two pixels.** Move the test pictures by two pixels. What is the accuracy of the
#    network that was trained with shifts of one pixel? Train it with `random_shift(2)`.
#    (On 8 by 8 pixels some digits then leave the picture.)
# 2. **No pooling.** Build `models.cnn(..., pool=1)`. How many parameters has the first dense layer now? (8 · 8 · 16 · 32.)
#    Is it better, on pictures as they are and moved?
# 3. **Real clothes.** `datasets.images("mnist_5k")` fetches 5,000 larger digits, and `"fashion_mnist"` 70,000 pictures of
#    clothes. Train the same network on the first, with its image shape. The second takes minutes:
#    `python experiments/image_recognition.py` does it, and compares it with what is published.
