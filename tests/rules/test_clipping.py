"""Clips of gradients against optax's, and what each leaves as it was."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.update_rules import (
    clip_adaptively,
    clip_by_global_norm,
    clip_by_norm,
    clip_by_value,
    gradient_descent,
)

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

SHAPES = {
    "scalar": (),
    "vector": (5,),
    "matrix": (4, 3),
    "heads": (4, 2, 3),
    "kernel": (2, 2, 3, 4),
    "empty": (0,),
}
SHAPES |= {"volume": (2, 1, 2, 3, 2), "row": (1, 6)}


def drawn(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(scale * rng.standard_normal(shape))
        for name, shape in SHAPES.items()
    }


def clipped(rule, g, w=None):
    return jax.jit(lambda g, w: rule.update(g, rule.init(w), w)[0])(g, w)


def assert_same(found, expected, rtol=1e-14):
    chex.assert_trees_all_close(found, expected, rtol=rtol)


@pytest.mark.on_ci(
    "the clip by value; test_clip_bounds_the_large_and_leaves_the_small has it",
    but=r"^global",
)
@pytest.mark.thorough("the other limits", but=r"-1\.0\]")
@pytest.mark.parametrize("limit", [0.1, 1.0, 1e6])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(clip_by_value, optax.clip), (clip_by_global_norm, optax.clip_by_global_norm)],
    ids=["value", "global norm"],
)
def test_clip_equals_optax(ours, theirs, limit):
    g = drawn(0)
    assert_same(clipped(ours(limit), g), clipped(theirs(limit), g))


@pytest.mark.thorough(
    "leaves of any shape; test_clip_bounds_the_large_and_leaves_the_small has one, "
    "and test_a_gradient_whose_square_overflows_keeps_its_direction two"
)
@pytest.mark.parametrize("limit", [0.1, 1.0, 1e6])
def test_clip_by_norm_is_the_global_clip_of_each_leaf_alone(limit):
    g = drawn(0)
    assert_same(
        clipped(clip_by_norm(limit), g),
        {k: clipped(optax.clip_by_global_norm(limit), leaf) for k, leaf in g.items()},
    )


@pytest.mark.thorough("the other pairs of arguments", but=r"^0\.01")
@pytest.mark.on_ci(
    "units of any shape; test_clip_adaptively_takes_the_axes_of_a_unit has a matrix "
    "by hand"
)
@pytest.mark.parametrize(
    ("clipping", "eps"), [(0.01, 1e-3), (0.5, 1e-3), (0.5, 10.0), (1e6, 0.0)]
)
def test_clip_adaptively_equals_optax(clipping, eps):
    g, w = drawn(0), drawn(1)
    w["matrix"] = w["matrix"].at[:, 0].set(0.0)  # A unit that starts at zero.
    found = clipped(clip_adaptively(clipping, eps), g, w)
    volume = found.pop("volume")  # optax 0.2.6 must be told the axes of five.
    assert_same(
        volume,
        clipped(
            optax.adaptive_grad_clip(clipping, eps, axis=(0, 1, 2, 3)),
            g.pop("volume"),
            w.pop("volume"),
        ),
    )
    assert_same(found, clipped(optax.adaptive_grad_clip(clipping, eps), g, w))


def test_clip_adaptively_takes_the_axes_of_a_unit():
    g, w = jnp.array([[6.0, 8.0], [0.3, 0.4]]), jnp.array([[3.0, 4.0], [3.0, 4.0]])
    np.testing.assert_allclose(
        clipped(clip_adaptively(0.5, axis=1), g, w),
        [[1.5, 2.0], [0.3, 0.4]],
        rtol=1e-14,
    )
    deep = jnp.ones((2, 1, 1, 1, 2, 2))
    with pytest.raises(
        ValueError,
        match=(
            r"does not know the units of the leaf \['a'\] of shape \(2, 1, 1, 1, 2, "
            r"2\)\. Pass axis="
        ),
    ):
        clipped(clip_adaptively(0.5), {"a": deep}, {"a": deep})
    np.testing.assert_allclose(
        clipped(clip_adaptively(0.5, axis=(0, 4)), deep, deep), 0.5, rtol=1e-14
    )


NORM = {
    "value": (clip_by_value, lambda g: jnp.max(jnp.abs(g))),
    "norm": (clip_by_norm, jnp.linalg.norm),
    "global norm": (clip_by_global_norm, jnp.linalg.norm),
}


@pytest.mark.parametrize("name", NORM)
def test_clip_bounds_the_large_and_leaves_the_small(name):
    clip, size = NORM[name]
    small, large = jnp.array([0.3, -0.4]), jnp.array([30.0, -40.0])
    np.testing.assert_array_equal(clipped(clip(1.0), small), small)
    assert size(clipped(clip(1.0), large)) == pytest.approx(1.0, rel=1e-15)
    if name != "value":
        np.testing.assert_allclose(clipped(clip(1.0), large), large / 50.0, rtol=1e-15)


def test_zero_gradient_stays_zero_and_nan_shows():
    zero, w = jnp.zeros(3), jnp.ones(3)
    for rule in (
        clip_by_value(1.0),
        clip_by_norm(1.0),
        clip_by_global_norm(1.0),
        clip_adaptively(0.1, 0.0),
    ):
        np.testing.assert_array_equal(clipped(rule, zero, w), 0.0)
        np.testing.assert_array_equal(clipped(rule, zero, zero), 0.0)
        assert np.isnan(clipped(rule, jnp.array([1.0, jnp.nan, 2.0]), w)[1])
    for rule in (clip_by_norm(1.0), clip_by_global_norm(1.0), clip_adaptively(0.1)):
        assert np.isnan(clipped(rule, jnp.array([1.0, jnp.inf, 2.0]), w)[1])


@pytest.mark.on_ci("traced limits; test_units_of_float16_do_not_overflow has the dtype")
def test_limits_may_be_traced_and_dtypes_are_kept():
    g, w = (
        {k: drawn(seed)[k].astype(jnp.bfloat16) for k in ("scalar", "matrix", "empty")}
        for seed in (0, 1)
    )
    for make in (clip_by_value, clip_by_norm, clip_by_global_norm, clip_adaptively):
        of = jax.jit(lambda limit, make=make: clipped(make(limit), g, w))
        found = of(jnp.float64(0.1))
        chex.assert_trees_all_equal_shapes_and_dtypes(found, g)
        of(jnp.float64(0.2))
        assert of._cache_size() == 1


def test_clip_chains_before_a_rule():
    g = jnp.array([30.0, -40.0])
    chained = optax.chain(clip_by_global_norm(0.1), gradient_descent(2.0))
    np.testing.assert_allclose(clipped(chained, g), [-0.12, 0.16], rtol=1e-14)


def test_bad_input_raises():
    for bad in (0.0, -1.0, np.nan, np.inf, "1", None, True):
        for make, name in (
            (clip_by_value, "max_value"),
            (clip_by_norm, "max_norm"),
            (clip_by_global_norm, "max_norm"),
        ):
            with pytest.raises(
                (ValueError, TypeError),
                match=f"{name} must be a finite number, positive; got {name}=",
            ):
                make(bad)
        with pytest.raises(
            (ValueError, TypeError), match="clipping must be a finite number, positive"
        ):
            clip_adaptively(bad)
    with pytest.raises(ValueError, match="eps must be a finite number, at least 0"):
        clip_adaptively(0.1, -1.0)
    with pytest.raises(
        ValueError, match=r"needs the params; call update\(grads, state, params\)"
    ):
        clipped(clip_adaptively(0.1), jnp.ones(2))


@pytest.mark.on_ci("the global norm", but="clip0")
@pytest.mark.parametrize("clip", [clip_by_norm(1.0), clip_by_global_norm(1.0)])
def test_norms_of_float16_do_not_overflow(clip):
    g = jnp.array([300.0, 400.0], jnp.float16)
    found, _ = clip.update(g, clip.init(g))
    assert found.dtype == jnp.float16
    np.testing.assert_allclose(np.asarray(found, float), [0.6, 0.8], rtol=1e-3)


@pytest.mark.on_ci("the global norm", but="clip_by_norm")
@pytest.mark.parametrize("clip", [clip_by_norm, clip_by_global_norm])
def test_a_gradient_whose_square_overflows_keeps_its_direction(clip):
    g = {"a": jnp.array([3e20, 0.0], "float32"), "b": jnp.array(-4e20, "float32")}
    rule = clip(1.0)
    found = rule.update(g, rule.init(g))[0]
    expected = [0.6, -0.8] if clip is clip_by_global_norm else [1.0, -1.0]
    np.testing.assert_allclose([found["a"][0], found["b"]], expected, rtol=1e-6)
    assert found["a"][1] == 0
    infinite = {"a": jnp.array([jnp.inf, 1.0]), "b": jnp.array(1.0)}
    assert np.isnan(rule.update(infinite, rule.init(infinite))[0]["a"][0])


@pytest.mark.on_ci("smaller sizes", but=r"3e\+38")
@pytest.mark.parametrize("size", [1e10, 1e25, 3e38])
def test_a_unit_whose_square_overflows_keeps_its_direction(size):
    w = jnp.array([[3.0, 1.0], [4.0, 0.0]], "float32")
    g = jnp.array([[size, 2.0], [size, 0.0]], "float32")
    clip = clip_adaptively(0.5)
    # Columns of w: norms 5 and 1.
    expected = [[2.5 / np.sqrt(2), 0.5], [2.5 / np.sqrt(2), 0.0]]
    updates = clip.update(g, clip.init(w), w)[0]
    np.testing.assert_allclose(updates, expected, rtol=1e-6)
    np.testing.assert_array_equal(clip.update(w, clip.init(g), g)[0][:, 0], w[:, 0])


def test_units_of_float16_do_not_overflow():
    rule, w = clip_adaptively(0.1), jnp.array([3.0, 4.0], "float16")
    found = rule.update(jnp.array([300.0, 400.0], "float16"), rule.init(w), w)[0]
    assert found.dtype == w.dtype
    np.testing.assert_allclose(found, [0.3, 0.4], rtol=2e-3)
