"""Images stored as bytes: standardisation on the device, and random augmentation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float, Num, Shaped, UInt8

from research.checks import (
    check_callable,
    check_dtype,
    check_key,
    check_methods,
    check_numbers,
    shown,
)
from research.models._convolution import check_image
from research.models._linear import check_size
from research.sizes import MOST_PIXELS, check_most
from research.types import Array, Key, Model, Params

# (key, images (..., H, W, C)) -> images of that shape and dtype
Augmentation = Callable[[Key, ArrayLike], Array]


def on_images(
    model: Model,
    mean: Num[ArrayLike, "*C"],
    sd: Num[ArrayLike, "*C"],
    *,
    dtype: DTypeLike,
) -> Model:
    """Wrap a model of standardised images so that apply accepts images as bytes.

    The result of apply is model.apply(params, (x - mean) / sd), computed on the device.
    Each batch is converted to floats only when it is used. The dataset can therefore
    stay in bytes, which take a quarter of the memory of float32.

    Args:
      model: Model of standardised images, shape (..., H, W, C), dtype `dtype`.
      mean, sd: Mean and standard deviation of the training images, shape () or (C,),
        for example from `mean_and_sd`. Both are in the units of x (0 to 255 for bytes).
      dtype: Dtype to which the images are converted before they are standardised.
    Returns:
      A model with the same params. Its apply accepts images of shape (..., H, W, C) in
      uint8 or another dtype.
    Raises:
      ValueError: sd is not positive, mean is not finite, or their shapes are wrong. In
        apply: x does not have the shape of images, or x is uint8 but sd is below 1. An
        sd below 1 is usual only for images that are scaled to 0..1.
    Example:
      >>> total = Model(lambda key: (), lambda params, x, key=None: x.sum((-3, -2, -1)))
      >>> images = np.full((2, 4, 4, 1), 200, np.uint8)
      >>> wrapped = on_images(total, 100.0, 50.0, dtype="float32")
      >>> print(wrapped.apply((), images))  # 16 pixels of (200 - 100) / 50
      [32. 32.]
    """
    check_model(model)
    check_numbers("mean", mean)
    check_numbers("sd", sd)
    check_dtype("dtype", dtype)
    mean, sd = np.asarray(mean, dtype=np.float64), np.asarray(sd, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise ValueError(f"mean must be finite; got mean={mean}.")
    if mean.ndim > 1 or sd.ndim > 1:
        raise ValueError(
            f"mean and sd must have shape () or (C,); got {mean.shape} and {sd.shape}."
        )
    if not np.all(sd > 0):
        raise ValueError(f"sd must be positive; got sd={sd}. Drop constant channels.")

    def apply(params: Params, x: ArrayLike, key: Key | None = None) -> Array:
        check_numbers("x", x)
        x = jnp.asarray(x)
        check_image(x, *(mean.shape or sd.shape))
        if x.dtype == jnp.uint8 and np.any(sd < 1):
            raise ValueError(
                "mean and sd must be in the units of x, bytes of 0 to 255; got "
                f"sd={sd}. If they are of images scaled to 0..1, multiply both by 255. "
                "If all bytes are 0 or 1, convert x to floats first."
            )
        # Convert the constants, because NumPy float64 would widen the whole model.
        low, scale = (
            jnp.broadcast_to(jnp.asarray(c, dtype), x.shape) for c in (mean, sd)
        )
        return model.apply(params, (x.astype(dtype) - low) / scale, key)

    return Model(model.init, apply)


def mean_and_sd(
    images: UInt8[np.ndarray, "n H W C"],
) -> tuple[Float[np.ndarray, "C"], Float[np.ndarray, "C"]]:
    """Compute the mean and standard deviation of each channel, in float64.

    Args:
      images: Images, uint8, shape (n, H, W, C).
    Returns:
      The mean and the population standard deviation over all images and pixels, each of
      shape (C,).
    Raises:
      ValueError: images are not uint8 with four axes, or there are no images.
    Example:
      >>> images = np.array([0, 200, 0, 200], np.uint8).reshape(4, 1, 1, 1)
      >>> mean, sd = mean_and_sd(images)
      >>> print(mean, sd)
      [100.] [100.]
    """
    check_numbers("images", images)
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        raise ValueError(
            f"images must be uint8, (n, H, W, C); got {images.dtype} of shape "
            f"{images.shape}."
        )
    # Count in parts, because np.bincount converts to int64: CIFAR-10 would take 400 MB
    # per channel.
    parts = np.array_split(images, -(-images.size // 2**22))
    counts = np.sum(
        [
            np.stack(
                [np.bincount(c.ravel(), minlength=256) for c in np.moveaxis(p, -1, 0)]
            )
            for p in parts
        ],
        axis=0,
    )
    shares, values = counts / counts.sum(axis=1, keepdims=True), np.arange(256.0)
    mean = shares @ values
    return mean, np.sqrt(np.sum(shares * (values - mean[:, None]) ** 2, axis=1))


def check_model(model: Model) -> None:
    """Raise TypeError unless the model has the functions init and apply.

    A Flax module also raises TypeError, because its init and apply have other
    arguments.
    """
    if any(base.__module__.startswith("flax.") for base in type(model).__mro__):
        raise TypeError(
            "model must be a research.models.Model; got the Flax module "
            f"{shown(model)}. Wrap it: research.models.from_linen(module, sample)."
        )
    check_methods(
        "model",
        model,
        "init",
        "apply",
        hint="Build one, such as research.models.linear(3).",
    )


def augmented(model: Model, augment: Augmentation) -> Model:
    """Wrap a model so that apply with a key, as in training, augments the images.

    An augmentation changes images at random, for example by a shift. If the model needs
    standardised images, pass the result of `on_images` as the argument `model`. The
    images are then augmented first and standardised afterwards. The zeros that
    `random_shift` puts at the border are therefore black. In standardised images, a
    zero would be the mean colour instead. For example: `augmented(on_images(cnn(...),
    mean, sd, dtype=...), random_shift(2))`.

    The model in the example below returns the first pixel of each image. With the key,
    two of the four images are mirrored.

    Args:
      model: Any model of images.
      augment: Function (key, x) -> x, such as `random_flip`, `random_crop(4)` or
        `random_shift(2)`. `in_turn` combines several functions.
    Returns:
      A model with the same params. If apply gets a key, the augmentation gets
      fold_in(key, 0), and the model gets fold_in(key, 1).
    References:
      Krizhevsky, Sutskever & Hinton, ImageNet classification with deep convolutional
      neural networks, NeurIPS 2012, section 4.1.
    Example:
      >>> first_pixel = Model(
      ...     lambda key: (), lambda params, x, key=None: x[..., 0, 0, 0]
      ... )
      >>> model = augmented(first_pixel, random_flip)
      >>> images = jnp.tile(jnp.arange(2.0).reshape(1, 1, 2, 1), (4, 1, 1, 1))
      >>> print(model.apply((), images), model.apply((), images, jax.random.key(1)))
      [0. 0. 0. 0.] [0. 1. 0. 1.]
    """
    check_model(model)
    check_callable("augment", augment, "key", "x")

    def apply(params: Params, x: ArrayLike, key: Key | None = None) -> Array:
        check_numbers("x", x)
        if key is None:
            return model.apply(params, x)
        return model.apply(
            params,
            augment(jax.random.fold_in(key, 0), jnp.asarray(x)),
            jax.random.fold_in(key, 1),
        )

    return Model(model.init, apply)


def mirror_averaged(model: Model) -> Model:
    """Wrap a model so that apply without a key averages over x and its mirror images.

    Without a key, the result of apply is the mean of model.apply(params, x) and
    model.apply(params, x'). Here x are the images, and x' are the same images with left
    and right swapped. With a key, in training, the result is model.apply(params, x,
    key).

    If the outputs are logits, the mean of the logits corresponds to a geometric mean of
    probabilities. Let g be the geometric mean of the probabilities of a class for x and
    for x'. This class gets the probability g / Σ g, where Σ runs over all classes.

    Use this wrapper together with `augmented(..., random_flip)`. A model that was
    trained without mirror images may have a lower accuracy with this wrapper.

    Args:
      model: Any model of images (..., H, W, C).
    Returns:
      A model with the same params. Without a key, apply takes twice as long.
    Raises:
      ValueError: In apply without a key: x has fewer than three axes.
    References:
      Krizhevsky, Sutskever & Hinton, ImageNet classification with deep convolutional
      neural networks, NeurIPS 2012, section 4.1 (which averages the probabilities over
      five crops and their mirror images).
    Example:
      >>> first_pixel = Model(
      ...     lambda key: (), lambda params, x, key=None: x[..., 0, 0, 0]
      ... )
      >>> image = jnp.array([1.0, 0.0, 5.0]).reshape(1, 1, 3, 1)
      >>> print(mirror_averaged(first_pixel).apply((), image))
      [3.]
    """
    check_model(model)

    def apply(params: Params, x: ArrayLike, key: Key | None = None) -> Array:
        check_numbers("x", x)
        if key is not None:
            return model.apply(params, x, key)
        x = jnp.asarray(x)
        check_image(x)
        both = model.apply(params, x), model.apply(params, x[..., ::-1, :])
        return (both[0] + both[1]) / 2

    return Model(model.init, apply)


def in_turn(*augmentations: Augmentation) -> Augmentation:
    """Build an augmentation that applies several augmentations one after another.

    An augmentation is a function (key, images) -> images. The first augmentation gets
    the key fold_in(key, 0), the second one gets fold_in(key, 1), and so on.

    Example:
      >>> augment = in_turn(random_flip, random_crop(4))
      >>> augment(jax.random.key(0), jnp.zeros((8, 32, 32, 3), jnp.uint8)).shape
      (8, 32, 32, 3)
    """
    for place, one in enumerate(augmentations):
        check_callable(f"augmentations[{place}]", one, "key", "x")

    def augment(key: Key, x: ArrayLike) -> Array:
        check_key("key", key)
        check_numbers("x", x)
        x = jnp.asarray(x)
        for i, one in enumerate(augmentations):
            x = one(jax.random.fold_in(key, i), x)
        return x

    return augment


def random_flip(
    key: Key, x: Shaped[ArrayLike, "*batch H W C"]
) -> Shaped[Array, "*batch H W C"]:
    """Mirror each image (swap left and right) with probability 1/2.

    Do not use this augmentation for digits and letters: a mirror changes their meaning.

    Args:
      key: Key for the draws. The same key flips the same images.
      x: Images (..., H, W, C).
    Returns:
      Images with the shape and dtype of x.
    Raises:
      ValueError: x has fewer than three axes.
    Example:
      >>> x = jnp.arange(3).reshape(1, 3, 1)
      >>> [random_flip(jax.random.key(seed), x).ravel().tolist() for seed in (0, 1)]
      [[0, 1, 2], [2, 1, 0]]
    """
    check_key("key", key)
    check_numbers("x", x)
    x = jnp.asarray(x)
    check_image(x)
    flipped = jax.random.bernoulli(key, jnp.float32(0.5), (*x.shape[:-3], 1, 1, 1))
    return jnp.where(jnp.broadcast_to(flipped, x.shape), x[..., ::-1, :], x)


def random_shift(pixels: int) -> Augmentation:
    """Build an augmentation that shifts each image by up to `pixels` along both axes.

    Pixels that enter from outside the image are 0 (black).

    Args:
      pixels: Largest shift. Each shift in -pixels..pixels is equally likely, and the
        shifts are independent for each image and axis. A shift by the whole height or
        width of an image leaves only zeros.
    Returns:
      The augmentation, a function (key, x) -> x.
    Raises:
      ValueError: pixels is not a positive integer. In the call: x has fewer than three
        axes.
    Example:
      >>> x = jnp.arange(1, 4).reshape(1, 3, 1)
      >>> augment = random_shift(1)
      >>> [augment(jax.random.key(seed), x).ravel().tolist() for seed in (6, 1, 3)]
      [[0, 1, 2], [1, 2, 3], [0, 0, 0]]
    """
    check_size("pixels", pixels, 1)
    check_most(MOST_PIXELS, pixels=pixels)
    return lambda key, x: _cropped(key, x, pixels, "constant")


def random_crop(padding: int) -> Augmentation:
    """Build an augmentation that cuts a random window from each padded image.

    The augmentation takes images of shape (..., H, W, C), and returns images of the
    same shape and dtype. It draws an independent window for each image. The window has
    the size of the image. The padding mirrors the image at its outermost pixels,
    without repeating these pixels, as jnp.pad does with mode="reflect". In the example,
    the rows 1, 2, 3 are padded to 2, 1, 2, 3, 2.

    Args:
      padding: Number of pixels of padding on each side, smaller than the height and the
        width of the images. Each of the (2 padding + 1)² windows is equally likely.
    Returns:
      The augmentation, a function (key, x) -> x.
    Raises:
      ValueError: padding is not a positive integer. In the call: x has fewer than three
        axes, or its height or width is not larger than padding.
    References:
      He, Zhang, Ren & Sun, Deep residual learning for image recognition, CVPR 2016,
      section 4.2 (which pads with 0).
    Example:
      >>> x = jnp.tile(jnp.arange(1, 4).reshape(3, 1, 1), (1, 3, 1))  # Rows 1, 2, 3.
      >>> random_crop(1)(jax.random.key(0), x)[..., 0].tolist()
      [[2, 2, 2], [3, 3, 3], [2, 2, 2]]
    """
    check_size("padding", padding, 1)
    check_most(MOST_PIXELS, padding=padding)
    return lambda key, x: _cropped(key, x, padding, "reflect")


def _cropped(key: Key, x: ArrayLike, padding: int, mode: str) -> Array:
    check_key("key", key)
    check_numbers("x", x)
    x = jnp.asarray(x)
    check_image(x)
    if mode == "reflect" and padding >= min(x.shape[-3:-1]):
        raise ValueError(
            f"padding must be smaller than the image; got padding={padding}, x of "
            f"shape {x.shape}."
        )
    images = x.reshape(-1, *x.shape[-3:])
    wider = jnp.pad(
        images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode=mode
    )
    # Draw uniforms rather than integers, because `randint` differs between versions of
    # JAX.
    drawn = jax.random.uniform(
        key, (len(images), 2), jnp.float32, np.float32(0), np.float32(1)
    )
    starts = jnp.floor(drawn * (2 * padding + 1)).astype(jnp.int32)
    cut = lambda image, start: jax.lax.dynamic_slice(
        image, (start[0], start[1], np.int32(0)), images.shape[1:]
    )
    return jax.vmap(cut)(wider, starts).reshape(x.shape)
