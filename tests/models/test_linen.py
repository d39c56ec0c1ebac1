"""Laws of Flax Linen modules as models: the same numbers, any leading axes, noise by a
key, no state.
"""

import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from research import losses, models, objectives
from research.models.linen import from_linen
from research.types import Batch, Sequences

COMPILE_QUICKLY = CHILDREN_COMPILE_QUICKLY = True  # tests/conftest.py


class Small(nn.Module):
    """A network for one batch axis exactly, with dropout that a flag of the given kind
    switches.
    """

    @nn.compact
    def __call__(self, x, train=False):
        x = x.reshape(x.shape[0], math.prod(x.shape[1:]))
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(nn.Dense(7)(x)))
        return nn.Dense(2)(x)


class Deterministic(nn.Module):
    rate: float = 0.5

    @nn.compact
    def __call__(self, x, deterministic):
        return nn.Dropout(self.rate)(
            nn.Dense(50, use_bias=False)(x), deterministic=deterministic
        )


X = np.random.default_rng(0).normal(size=(2, 3, 4, 5))


def drawn(model):
    """Params of the model's shapes, without the model's draw, which costs more to
    compile than all else here.
    """
    generator = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: generator.normal(size=leaf.shape),
        jax.eval_shape(model.init, jax.random.key(0)),
    )


@pytest.mark.on_ci(
    "the draw of a module; test_a_pytree_of_inputs_is_batched_leaf_by_leaf has "
    "predictions with given params"
)
def test_params_are_those_of_the_module_in_the_dtype_asked_for_and_predictions_follow():
    variables = Small().init(jax.random.key(0), X[0])
    for dtype in (None, jnp.float64):  # Linen draws in float32.
        model = from_linen(Small(), X[0, 0], dtype=dtype)
        params = model.init(jax.random.key(0))
        jax.tree.map(np.testing.assert_array_equal, params, variables["params"])
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {
            jnp.dtype(dtype or jnp.float32)
        }
        assert model.apply(params, jnp.asarray(X, dtype or jnp.float32)).dtype == (
            dtype or jnp.float32
        )
        np.testing.assert_allclose(
            model.apply(params, X[0]), Small().apply(variables, X[0]), rtol=1e-15
        )


@pytest.mark.on_ci("no example", but="leading2")
@pytest.mark.thorough("other numbers of axes", but="leading[24]")
@pytest.mark.parametrize("leading", [(), (2,), (2, 3), (2, 1, 3), (0,)])
def test_leading_axes_of_any_number_equal_the_loop_over_examples(leading):
    model = from_linen(Small(), X[0, 0])
    params = drawn(model)
    x = np.random.default_rng(1).normal(size=(*leading, 4, 5))
    prediction = model.apply(params, x)
    assert prediction.shape == (*leading, 2)
    for index in np.ndindex(leading):
        np.testing.assert_allclose(
            prediction[index], model.apply(params, x[index]), rtol=1e-12, atol=1e-12
        )


@pytest.mark.thorough(
    "both flags; test_dropout_of_a_half_zeroes_half_and_doubles_the_rest has a key "
    "and none, test_streams_name_what_the_module_draws_and_differ another flag"
)
def test_a_key_switches_noise_on_and_no_key_switches_it_off():
    for module in (Small(), Deterministic()):
        model = from_linen(module, X[0, 0, 0])
        params = drawn(model)
        quiet = model.apply(params, X)
        np.testing.assert_array_equal(quiet, model.apply(params, X))
        noisy = [
            model.apply(params, X, jax.random.fold_in(jax.random.key(1), i))
            for i in (0, 0, 1)
        ]
        np.testing.assert_array_equal(noisy[0], noisy[1])
        assert (np.array(noisy[0]) != noisy[2]).any()
        assert (np.array(noisy[0]) != quiet).any()


def test_dropout_of_a_half_zeroes_half_and_doubles_the_rest():
    model = from_linen(Deterministic(), X[0, 0, 0])
    params = drawn(model)
    share = np.array(model.apply(params, X, jax.random.key(1)) / model.apply(params, X))
    kept = np.isclose(share, 2)
    assert (kept | (share == 0)).all()
    assert abs(kept.mean() - 0.5) < 4 * 0.5 / np.sqrt(
        kept.size
    )  # Four standard deviations of a mean of coins.


def test_flags_are_as_given_where_they_are_given():
    fixed = from_linen(Deterministic(), X[0, 0, 0], deterministic=True)
    params = drawn(fixed)
    np.testing.assert_array_equal(
        fixed.apply(params, X, jax.random.key(1)), fixed.apply(params, X)
    )
    told = from_linen(
        Deterministic(), X[0, 0, 0], deterministic=True, noise={"deterministic": False}
    )
    found = from_linen(Deterministic(), X[0, 0, 0])
    np.testing.assert_array_equal(
        *(m.apply(params, X, jax.random.key(1)) for m in (told, found))
    )


def test_streams_name_what_the_module_draws_and_differ():
    class Noise(nn.Module):
        @nn.compact
        def __call__(self, x, training=False):
            draw = lambda stream: jax.random.normal(
                self.make_rng(stream), x.shape, x.dtype
            )
            return (
                jnp.stack([draw("dropout"), draw("noise")], axis=-1) if training else x
            )

    model = from_linen(Noise(), X[0, 0, 0], streams=("dropout", "noise"))
    assert model.init(jax.random.key(0)) == {}
    np.testing.assert_array_equal(model.apply({}, X), X)
    noise = np.array(model.apply({}, X, jax.random.key(1)))
    assert (noise[..., 0] != noise[..., 1]).all()
    assert 0.5 < np.std(noise) < 1.5


def test_a_pytree_of_inputs_is_batched_leaf_by_leaf():
    class Mean(nn.Module):
        @nn.compact
        def __call__(self, sequences):
            valid = (
                jnp.arange(sequences.values.shape[1])[None] < sequences.length[:, None]
            )
            return nn.Dense(2)(jnp.sum(sequences.values * valid[..., None], axis=1))

    model = from_linen(Mean(), Sequences(X[0, 0], np.int32(4)))
    params = drawn(model)
    length = np.array([[1, 2, 3], [4, 1, 4]], np.int32)
    prediction = model.apply(params, Sequences(X, length))
    assert prediction.shape == (2, 3, 2)
    summed = (
        X[1, 2, :4].sum(axis=0) @ params["Dense_0"]["kernel"]
        + params["Dense_0"]["bias"]
    )
    np.testing.assert_allclose(prediction[1, 2], summed, rtol=1e-13)


def test_a_module_with_state_is_refused_before_it_is_drawn():
    class Normalised(nn.Module):
        @nn.compact
        def __call__(self, x, train=True):
            return nn.BatchNorm(use_running_average=not train)(x)

    with pytest.raises(
        ValueError,
        match=r"Normalised also has batch_stats\. Use LayerNorm or GroupNorm instead",
    ):
        from_linen(Normalised(), X[0, 0])


def test_what_is_no_module_and_what_is_no_example_are_refused():
    for wrong in (nn.Dense, lambda x: x, models.mlp((5, 2))):
        with pytest.raises(
            TypeError,
            match=r"module must be a flax\.linen\.Module, already constructed",
        ):
            from_linen(wrong, X[0, 0])
    model = from_linen(Small(), X[0, 0])
    params = drawn(model)
    for shape in ((5,), (5, 4), (2, 4, 6)):
        with pytest.raises(
            ValueError,
            match=(
                r"x must have the example's shape \(4, 5\) after any leading batch axes"
            ),
        ):
            model.apply(params, np.zeros(shape))
    with pytest.raises(ValueError, match="x must have the structure of the example"):
        model.apply(params, {"x": X})


@pytest.mark.on_ci(
    "a gradient beside differences; "
    "test_leading_axes_of_any_number_equal_the_loop_over_examples has the "
    "predictions that it is made of"
)
def test_a_linen_model_is_trained_by_the_objective_of_every_other():
    model = from_linen(Small(), X[0, 0])
    params = drawn(model)
    run = jax.jit(
        jax.value_and_grad(
            objectives.empirical_risk(model, losses.softmax_cross_entropy)
        )
    )
    batch = Batch(jnp.array(X[0]), jnp.array([0, 1, 1]), jax.random.key(3))
    ahead, behind = (
        run(jax.tree.map(lambda p, h=h: p + h, params), batch)[0] for h in (1e-6, -1e-6)
    )
    slope = sum(np.sum(leaf) for leaf in jax.tree.leaves(run(params, batch)[1]))
    np.testing.assert_allclose((ahead - behind) / 2e-6, slope, rtol=1e-7)


@pytest.mark.on_ci("a process; nothing shorter shows this")
def test_importing_the_models_imports_no_flax():
    program = (
        "import sys, research.models; research.models.from_linen; print('flax' in "
        "sys.modules)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert printed == "False\n"
