"""Images of bytes against standardised floats; augmentation: its range, its shares, its
keys; and what is refused.
"""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from research.models import (
    augmented,
    cnn,
    in_turn,
    mean_and_sd,
    mirror_averaged,
    on_images,
    random_crop,
    random_flip,
    random_shift,
)
from research.types import Model

COMPILE_QUICKLY = True  # tests/conftest.py

AUGMENTATIONS = {
    "flip": random_flip,
    "shift": random_shift(2),
    "crop": random_crop(2),
    "in turn": in_turn(random_flip, random_crop(1), random_shift(1)),
}
each_augmentation = pytest.mark.parametrize(
    "augment", AUGMENTATIONS.values(), ids=AUGMENTATIONS
)
IDENTITY = Model(lambda key: (), lambda params, x, key=None: x)


def stored(n=5, shape=(6, 5, 3), least=0):
    return np.random.default_rng(0).integers(
        least, 256, size=(n, *shape), dtype=np.uint8
    )


def test_bytes_give_what_standardised_floats_give():
    x = stored()
    mean, sd = mean_and_sd(x)
    model = cnn((6, 5, 3), 2, channels=(2,), hidden=(), dtype="float32")
    params = model.init(jax.random.key(0))
    expected = jax.jit(model.apply)(params, ((x - mean) / sd).astype(np.float32))
    fed = on_images(model, mean, sd, dtype="float32")
    np.testing.assert_allclose(
        jax.jit(fed.apply)(params, x), expected, rtol=1e-5, atol=1e-5
    )
    assert "f64" not in str(jax.make_jaxpr(fed.apply)(params, x))
    standardised = jax.jit(on_images(IDENTITY, mean, sd, dtype="float64").apply)((), x)
    np.testing.assert_allclose(standardised, (x - mean) / sd, rtol=1e-13, atol=1e-13)


def test_mean_and_sd_equal_numpys():
    x = stored()
    mean, sd = mean_and_sd(x)
    np.testing.assert_allclose(mean, x.mean(axis=(0, 1, 2), dtype=float), rtol=1e-13)
    np.testing.assert_allclose(sd, x.std(axis=(0, 1, 2), dtype=float), rtol=1e-13)


def test_mean_and_sd_are_those_of_all_images_where_they_are_counted_in_parts():
    x = np.zeros((2, 2100, 1000, 1), np.uint8)  # More than the 2^22 bytes of a part.
    x[1] = 200
    assert mean_and_sd(x) == (100, 100)


@pytest.mark.thorough("each alone; make test has all in turn", but="in turn")
@each_augmentation
def test_augmentation_keeps_shape_dtype_and_the_pictures_own_values(augment):
    x = stored(8, least=1)
    y = np.asarray(jax.jit(augment)(jax.random.key(0), x))
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert (y != x).any()
    for before, after in zip(x, y, strict=True):
        for channel in range(3):
            assert {*after[..., channel].flat} <= {0, *before[..., channel].flat}


@pytest.mark.thorough("each alone; make test has all in turn", but="in turn")
@each_augmentation
def test_the_same_key_gives_the_same_picture_and_another_key_another(augment):
    x = stored(8)
    one, again, other = (
        np.asarray(jax.jit(augment)(jax.random.key(seed), x)) for seed in (1, 1, 2)
    )
    assert (one == again).all()
    assert (one != other).any()
    several = jax.jit(augment)(jax.random.key(1), x.reshape(2, 4, 6, 5, 3))
    assert (np.asarray(several).reshape(x.shape) == one).all()


def test_the_same_flip_twice_is_no_flip_and_half_are_flipped():
    x = np.tile(stored(1), (400, 1, 1, 1))
    flip = jax.jit(lambda seed, x: random_flip(jax.random.key(seed), x))
    once = np.asarray(flip(0, x))
    assert (flip(0, once) == x).all()
    flipped = (once == x[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (once[~flipped] == x[0]).all()
    assert 140 < flipped.sum() < 260  # Six standard deviations of a fair coin.


def windows(x, pixels, mode):
    """Every window of the padded image, by its bytes."""
    wider = np.pad(x, ((pixels, pixels), (pixels, pixels), (0, 0)), mode=mode)
    height, width = x.shape[:2]
    offsets = np.ndindex(2 * pixels + 1, 2 * pixels + 1)
    return [
        np.ascontiguousarray(wider[i : i + height, j : j + width]).tobytes()
        for i, j in offsets
    ]


@pytest.mark.parametrize(
    ("build", "mode"),
    [(random_shift, "constant"), (random_crop, "reflect")],
    ids=["shift", "crop"],
)
def test_every_window_is_equally_likely(build, mode):
    x = stored(1, (4, 3, 1), least=1)
    drawn = np.asarray(jax.jit(build(1))(jax.random.key(0), np.tile(x, (900, 1, 1, 1))))
    counts = Counter(image.tobytes() for image in drawn)
    expected = windows(x[0], 1, mode)
    assert counts.keys() == {*expected}
    # Pearson's statistic of nine equal shares; a right one is larger once in a million
    # keys.
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < chi2.isf(
        1e-6, 8
    )


def test_augmented_varies_only_with_a_key_and_hands_its_children_on():
    x = stored()
    model = augmented(
        Model(lambda key: (), lambda params, x, key=None: (x, key)), random_flip
    )
    plain, no_key = model.apply((), x)
    assert (plain == x).all()
    assert no_key is None
    key = jax.random.key(7)
    varied, child = model.apply((), x, key)
    assert (varied == random_flip(jax.random.fold_in(key, 0), x)).all()
    assert (
        jax.random.key_data(child) == jax.random.key_data(jax.random.fold_in(key, 1))
    ).all()


def test_mean_over_mirror_images_is_taken_without_a_key_alone():
    x, weights = stored() / 16, np.random.default_rng(0).normal(size=stored().shape[1:])
    apply = lambda params, x, key=None: (x * weights[None]).sum((-3, -2, -1))
    model = mirror_averaged(Model(lambda key: (), apply))
    both = apply((), x), apply((), np.flip(x, axis=-2))
    assert not np.allclose(*both)
    np.testing.assert_allclose(model.apply((), x), np.mean(both, axis=0), rtol=1e-12)
    np.testing.assert_allclose(model.apply((), x, jax.random.key(0)), both[0])


REFUSED = {
    "sd of 0": (
        lambda: on_images(IDENTITY, 0.0, [1.0, 0.0], dtype="float32"),
        "sd must be positive",
    ),
    "sd of 0..1": (
        lambda: on_images(IDENTITY, 0.5, 0.3, dtype="float32").apply((), stored()),
        (
            "units of x, bytes of 0 to 255; got sd=0.3. If they are of images scaled to"
            " 0..1, multiply both by 255"
        ),
    ),
    "channels first": (
        lambda: on_images(IDENTITY, [1.0, 2.0, 3.0], 1.0, dtype="float32").apply(
            (), stored().transpose(0, 3, 1, 2)
        ),
        r"channels last.*moveaxis\(x, -3, -1\)",
    ),
    "floats": (lambda: mean_and_sd(stored() / 255), "images must be uint8.*float64"),
    "no shift": (lambda: random_shift(0), "pixels must be a positive integer"),
    "small image": (lambda: random_crop(5)(jax.random.key(0), stored()), "padding=5"),
    "flat image, averaged": (
        lambda: mirror_averaged(IDENTITY).apply((), jnp.zeros((5, 5))),
        "channels last",
    ),
    "flat image": (
        lambda: random_flip(jax.random.key(0), jnp.zeros((5, 5))),
        "channels last",
    ),
}


def test_what_is_no_augmentation_is_named():
    with pytest.raises(TypeError, match=r"augmentations\[1\] must be a function"):
        in_turn(random_flip, 4)


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused_with_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
