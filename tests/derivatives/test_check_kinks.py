"""Checks at kinks: JAX's choice of a side is no bug, and a bug is found beside them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.derivatives import check_derivative

DRAWS_NO_KEYS = True  # tests/conftest.py

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "leaky": jax.nn.leaky_relu,
    "steep": lambda z: jax.nn.leaky_relu(z, 0.3),
    "abs": jnp.abs,
}


def all_at_0(activation, random):
    """A sum of rectifiers that are all at 0, each of which depends on all entries."""
    n, k = random.integers(2, 8), random.integers(3, 17)
    a, c, d = (jnp.asarray(random.normal(size=shape)) for shape in ((k, n), k, n))
    smooth = lambda x: jnp.sum(jnp.sin(d * x)) + jnp.sum(d) * jnp.sum(x**2)
    return lambda x: c @ activation(a @ x) + smooth(x), jnp.zeros(n)


def one_layer(activation, random):
    """The loss of a network with a bias of 0 and a first input of 0."""
    units = int(random.integers(4, 20))
    x, y = jnp.asarray(random.normal(size=(6, 4))), jnp.asarray(random.normal(size=6))
    params = {
        "weights": jnp.asarray(random.normal(size=(4, units))),
        "bias": jnp.zeros(units),
        "out": jnp.asarray(random.normal(size=units)),
    }
    x = x.at[0].set(0.0)
    hidden = lambda p: activation(x @ p["weights"] + p["bias"][None])
    return lambda p: jnp.mean((hidden(p) @ p["out"] - y) ** 2), params


def two_layers(activation, random):
    """The loss of a network with two layers of units at 0."""
    first, second = int(random.integers(4, 12)), int(random.integers(3, 8))
    x, y = jnp.asarray(random.normal(size=(6, 4))), jnp.asarray(random.normal(size=6))
    shapes = {"first": (4, first), "second": (first, second), "out": (second,)}
    params = {k: jnp.asarray(random.normal(size=s)) for k, s in shapes.items()}
    params |= {"b": jnp.zeros(first), "c": jnp.zeros(second)}
    x = x.at[0].set(0.0)

    def loss(p):
        hidden = activation(x @ p["first"] + p["b"][None])
        hidden = activation(hidden @ p["second"] + p["c"][None])
        return jnp.mean((hidden @ p["out"] - y) ** 2)

    return loss, params


PROBLEMS = {f.__name__: f for f in (all_at_0, one_layer, two_layers)}


def bugs(f, x):
    """Derivatives with an error of 1 % everywhere, and of 2 % in one large entry."""
    gradient = jax.grad(f)
    index = int(jnp.argmax(jnp.abs(jax.tree.leaves(gradient(x))[-1])))

    def one_entry(x):
        leaves, structure = jax.tree.flatten(gradient(x))
        last = leaves[-1].ravel()
        last = last.at[index].multiply(1.02).reshape(leaves[-1].shape)
        return jax.tree.unflatten(structure, [*leaves[:-1], last])

    return (lambda x: jax.tree.map(lambda leaf: 1.01 * leaf, gradient(x)), one_entry)


@pytest.mark.on_ci(
    "many rectifiers; "
    "test_explanation_says_that_the_derivative_is_wrong_beside_the_kink has one "
    "kink, and an error"
)
@pytest.mark.thorough("networks, the other seeds and activations", but="^0-leaky-all")
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_rectifiers_at_0_of_several_entries_each_are_no_bug(seed, activation, problem):
    """JAX takes one side of each rectifier, and no point near x may have all of them.

    In networks of two layers, JAX's derivative of leaky(-leaky(b)) at 0 is -1, and the
    slope is -0.01 on both sides. So "wrong" is right if such a unit is met.
    """
    random = np.random.default_rng([seed, len(activation), len(problem)])
    f, x = PROBLEMS[problem](ACTIVATIONS[activation], random)
    key = jax.random.key(seed)
    report = check_derivative(f, x, key)
    assert report.verdict == "kink" or problem == "two_layers", report.text()
    for bug in bugs(f, x):
        report = check_derivative(f, x, key, bug)
        assert report.verdict == "wrong", report.text()


def lasso(random, n=12):
    x = np.exp(random.uniform(-12, 6, n)) * (random.random(n) < 0.5)
    a, y = random.normal(size=(2 * n, n)), random.normal(size=2 * n)
    return lambda x: jnp.mean((a @ x - y) ** 2) + 0.3 * jnp.sum(jnp.abs(x)), x


def hinges(random):
    a, w = random.integers(-3, 4, size=(20, 4)), random.integers(-2, 3, size=4)
    signs, w[0] = random.choice([-1.0, 1.0], 20), 1
    a[0] = signs[0] * np.array([1 - w[1] - w[2] - w[3], 1, 1, 1])  # A margin of 1.
    loss = lambda w: jnp.mean(jax.nn.relu(1 - signs * (a @ w))) + 0.1 * w @ w
    return loss, w.astype(float)


def pooling(random):
    x, w = np.maximum(random.normal(size=(8, 8)), 0), random.normal(size=(4, 4))
    x[:2, :2] = 0  # A window in which all pixels are black.
    pooled = lambda x: jnp.max(x.reshape(4, 2, 4, 2), axis=(1, 3))
    return lambda x: jnp.sum(w * pooled(x)) + 0.1 * jnp.sum(x**2), x


def sorting(random):
    x, c = random.integers(-1, 2, size=6).astype(float), random.normal(size=6)
    return lambda x: jnp.sum(jnp.sort(x) * c) + jnp.exp(x[0]), x


def total_variation(random):
    x = np.repeat(random.normal(size=8), 2)
    return lambda x: jnp.sum(jnp.abs(jnp.diff(x))) + jnp.sum(jnp.tanh(x) ** 2), x


def clipping(random):
    x = np.array([*random.choice([-1.0, 1.0], 3), 0.3, 2.0])
    return lambda x: jnp.sum(jnp.clip(x, -1, 1) ** 3) + jnp.sum(x), x


def waves(random):
    x, k = random.normal(size=4), 10.0 ** random.uniform(0, 6)
    x[0] = 0
    return lambda x: jnp.sum(jnp.sin(k * x) / k) + jnp.abs(x[0]), x


def ill_conditioned(random):
    x, root = random.normal(size=6), random.normal(size=(6, 6))
    x[:2], h = 0, root @ np.diag(10.0 ** random.uniform(-5, 5, 6)) @ root.T
    return lambda x: x @ h @ x / 2 + jnp.abs(x[0]) + 2 * jnp.abs(x[1]), x


KINKED = {
    f.__name__: f
    for f in (
        *(lasso, hinges, pooling, sorting),
        *(total_variation, clipping, waves, ill_conditioned),
    )
}


@pytest.mark.thorough(
    "eight problems with kinks; "
    "test_rectifiers_at_0_of_several_entries_each_are_no_bug finds an error of 1 %, "
    "too"
)
@pytest.mark.parametrize("name", KINKED)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_error_of_one_percent_at_a_kink_is_found_beside_the_kink(dtype, seed, name):
    f, x = KINKED[name](np.random.default_rng([seed, len(name)]))
    x, key = jnp.asarray(x, dtype), jax.random.key(seed)
    report = check_derivative(f, x, key)
    assert report.verdict == "kink", report.text()
    report = check_derivative(f, x, key, lambda x: 1.01 * jax.grad(f)(x))
    assert report.verdict == "wrong", report.text()


def test_explanation_says_that_the_derivative_is_wrong_beside_the_kink():
    f = lambda x: jnp.max(x) + jnp.sin(x[0] + 2 * x[1])
    x, key = jnp.ones(2), jax.random.key(0)
    report = check_derivative(f, x, key, lambda x: 1.001 * jax.grad(f)(x))
    assert report.verdict == "wrong"
    assert "has a kink here" in report.explanation
    assert "Beside it" in report.explanation


@pytest.mark.thorough(
    "a constant derivative; test_at_a_kink_a_derivative_lies_between_the_slopes in "
    "test_check.py has one"
)
def test_derivative_that_was_computed_at_x_alone_is_not_tested_beside_the_kink():
    """It is the same at every point, so it is wrong elsewhere, whatever it is at x."""
    f = lambda x: jnp.sum(jnp.abs(x)) + jnp.sum(jnp.sin(x))
    x, key = jnp.array([0.0, 0.3, -0.7]), jax.random.key(0)
    at_x = jax.grad(f)(x)
    assert check_derivative(f, x, key, lambda _: at_x).verdict == "kink"
    assert check_derivative(f, x, key, lambda _: 3 * at_x).verdict == "wrong"


@pytest.mark.thorough(
    "a derivative in float32; test_rectifiers_at_0_of_several_entries_each_are_no_bug "
    "has the law in float64"
)
def test_derivative_in_float32_is_tested_where_float32_can_tell_points_from_x():
    f = lambda x: jnp.maximum(x[0], x[1]) + jnp.abs(x[2]) + jnp.sum(x**2)
    x = jnp.asarray(np.float32([0.7, 0.7, 0.0, 1.3]), jnp.float64)
    narrow = lambda x: jax.grad(f)(x.astype(jnp.float32))
    report = check_derivative(f, x, jax.random.key(0), narrow)
    assert report.verdict == "kink", report.text()
    wrong = lambda x: 1.01 * narrow(x)
    assert check_derivative(f, x, jax.random.key(0), wrong).verdict == "wrong"


@pytest.mark.thorough(
    "500 and 2000 rectifiers at 0; "
    "test_rectifiers_at_0_of_several_entries_each_are_no_bug has fewer"
)
@pytest.mark.parametrize("units", [500, 2000])
def test_wide_layer_of_rectifiers_at_0_is_a_kink(units):
    """Kinks are so close to each other that they lie between most values."""
    random = np.random.default_rng(0)
    weights = jnp.asarray(random.normal(size=(units, 10)) / np.sqrt(10))
    out = jnp.asarray(random.normal(size=units) / np.sqrt(units))
    f = lambda x: out @ jax.nn.leaky_relu(weights @ x) + 0.1 * jnp.sum(x)
    x, key = jnp.zeros(10), jax.random.key(0)
    report = check_derivative(f, x, key)
    assert report.verdict == "kink", report.text()
    wrong = lambda x: 1.02 * jax.grad(f)(x)
    assert check_derivative(f, x, key, wrong).verdict == "wrong"


@pytest.mark.on_ci("a second kink that rounding hides; nothing shorter has one")
@pytest.mark.thorough("the other distance", but="1e-11")
@pytest.mark.parametrize("distance", [1e-9, 1e-11])
def test_second_kink_that_rounding_hides_is_no_bug(distance):
    random = np.random.default_rng(1)
    x, (a, b) = random.normal(size=4), random.normal(size=(2, 4))
    height = jnp.asarray(b @ x + distance * random.normal())
    kinks = lambda z: jnp.abs(z[0] - x[0]) + jax.nn.relu(b @ z - height)
    f = lambda z: 1e4 + kinks(z) + jnp.sum(jnp.sin(a * z))
    report = check_derivative(f, jnp.asarray(x), jax.random.key(1))
    assert report.verdict in ("kink", "unresolved"), report.text()


@pytest.mark.thorough(
    "rounded values at a kink; test_check.py has others in "
    "test_rounding_that_jax_cannot_see_is_no_bug_and_hides_none"
)
@pytest.mark.parametrize("digits", [6, 8, 10])
def test_rounding_of_a_numpy_function_is_no_bug_at_a_kink(digits):
    plain = lambda x: np.sum(np.abs(x)) + np.sum(np.sin(x))
    f = lambda x: np.round(plain(np.asarray(x)), digits)
    x, key = jnp.array([0.0, 0.6, -0.3, 1.1, 0.2]), jax.random.key(0)
    right = lambda x: np.sign(x) + np.cos(x)
    report = check_derivative(f, x, key, right)
    assert report.verdict == "kink", report.text()
    assert check_derivative(f, x, key, lambda x: 1.2 * right(x)).verdict == "wrong"


@pytest.mark.on_ci(
    "an error in one piece; "
    "test_explanation_says_that_the_derivative_is_wrong_beside_the_kink has one "
    "everywhere"
)
@pytest.mark.thorough("the other number of rectifiers", but=r"^4\]")
@pytest.mark.parametrize("number", [2, 4])
def test_error_in_the_piece_where_all_rectifiers_are_on_is_found(number):
    c = jnp.asarray(np.random.default_rng(0).normal(size=4))
    on = lambda x: jnp.prod(jax.nn.relu(x[:number]))
    f = lambda x: jnp.sum(jax.nn.relu(x)) + x @ c + on(x)
    wrong = lambda x: jax.grad(f)(x) * jnp.where(jnp.all(x[:number] > 0), 1.5, 1.0)
    report = check_derivative(f, jnp.zeros(4), jax.random.key(0), wrong)
    assert report.verdict == "wrong", report.text()
