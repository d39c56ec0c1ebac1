"""Recurrent networks against loops written out in NumPy, torch's recorded values, Flax
Linen and finite differences.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from research import models
from research.models.cells import CELLS
from research.models.recurrent_layer import unroll
from research.types import Sequences

COMPILE_QUICKLY = True  # tests/conftest.py

BOUND = 1e-12
each_cell = pytest.mark.parametrize("cell", CELLS)
LENGTH = np.array([5, 1, 3])


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def vanilla_step(w, u, b, c, x, h, memory):
    return np.tanh(w @ x + b + u @ h), memory


def gru_step(w, u, b, c, x, h, memory):
    (wr, wz, wn), (ur, uz, un), (br, bz, bn) = (np.split(a, 3) for a in (w, u, b))
    r, z = sigmoid(wr @ x + br + ur @ h), sigmoid(wz @ x + bz + uz @ h)
    n = np.tanh(wn @ x + bn + r * (un @ h + c))
    return (1 - z) * n + z * h, memory


def lstm_step(w, u, b, c, x, h, memory):
    i, f, g, o = np.split(w @ x + b + u @ h, 4)
    memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(memory), memory


STEPS = {"vanilla": vanilla_step, "gru": gru_step, "lstm": lstm_step}


def written_out(cell, params, x):
    """The h of the top layer after each step of one sequence (T, d), one number after
    the other.
    """
    layers = [params[name] for name in sorted(params) if name.startswith("layer")]
    for layer in layers:
        w, u, b = (
            layer["input"]["weights"].T,
            layer["recurrent"]["weights"].T,
            layer["input"]["bias"],
        )
        h = memory = np.zeros(u.shape[1])
        hidden = []
        for now in x:
            h, memory = STEPS[cell](
                w, u, b, layer["recurrent"].get("bias"), now, h, memory
            )
            hidden.append(h)
        x = hidden
    return np.array(x)


def drawn(model, seed=0):
    """Parameters no entry of which is 0."""
    generator = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(
        lambda leaf: jnp.array(
            generator.normal(scale=0.6, size=leaf.shape), leaf.dtype
        ),
        shapes,
    )


def inputs(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


@functools.cache
def network(cell, **options):
    return models.recurrent(2, 3, 4, cell=cell, **options)


@pytest.mark.thorough(
    (
        "one layer, and the other cells, whose steps test_reference_models.py and "
        "test_linen_twins.py have"
    ),
    but="^2-vanilla",
)
@each_cell
@pytest.mark.parametrize("num_layers", [1, 2])
def test_network_equals_the_loop_over_time_written_out(cell, num_layers):
    last, mean, every = (
        network(cell, num_layers=num_layers, outputs=outputs)
        for outputs in ("last", "mean", "every")
    )
    params, x = drawn(last), inputs(3, 5, 2)
    own = jax.tree.map(np.asarray, params)
    readout = lambda h: h @ own["output"]["weights"] + own["output"]["bias"]
    expected = np.stack([readout(written_out(cell, own, row)) for row in x])
    for row, stop in enumerate(LENGTH):
        expected[row, stop:] = 0
    batch = Sequences(x, LENGTH)
    np.testing.assert_allclose(
        jax.jit(every.apply)(params, batch), expected, rtol=BOUND, atol=BOUND
    )
    ends = expected[np.arange(3), LENGTH - 1]
    np.testing.assert_allclose(
        jax.jit(last.apply)(params, batch), ends, rtol=BOUND, atol=BOUND
    )
    np.testing.assert_allclose(
        jax.jit(last.apply)(params, x)[0], expected[0, -1], rtol=BOUND, atol=BOUND
    )
    # The output layer is linear, so the output of the mean is the mean of the outputs.
    means = expected.sum(axis=1) / LENGTH[:, None]
    np.testing.assert_allclose(
        jax.jit(mean.apply)(params, batch), means, rtol=BOUND, atol=BOUND
    )
    np.testing.assert_allclose(
        jax.jit(mean.apply)(params, x)[0], expected[0].mean(0), rtol=BOUND, atol=BOUND
    )


@pytest.mark.thorough("the other cells", but="vanilla")
@each_cell
def test_embedding_equals_the_rows_it_names(cell):
    model = network(cell, embedding=5, outputs="every")
    params, symbols = drawn(model), np.array([[0, 1, 1, 0], [1, 1, 1, 1]])
    rows = np.asarray(params["embedding"]["weights"])[symbols]
    of_floats = {name: layer for name, layer in params.items() if name != "embedding"}
    without = models.recurrent(5, 3, 4, cell=cell, outputs="every")
    np.testing.assert_allclose(
        jax.jit(model.apply)(params, symbols),
        jax.jit(without.apply)(of_floats, rows),
        rtol=BOUND,
        atol=BOUND,
    )


TWINS = {
    "vanilla": (nn.SimpleCell, "", ["i"], "i"),
    "gru": (nn.GRUCell, "rzn", [], "i"),
    "lstm": (nn.LSTMCell, "ifgo", [], "h"),
}


def linen_params(cell, params):
    """Ours in the layout of the Linen cell: one matrix a gate, and its own place for
    each bias.
    """
    layer, gates = params["layer_1"], TWINS[cell][1]
    w, b, u = (
        layer["input"]["weights"],
        layer["input"]["bias"],
        layer["recurrent"]["weights"],
    )
    split = lambda a: np.split(np.asarray(a), max(len(gates), 1), axis=-1)
    biased = {
        "i": "bias" if cell != "lstm" else None,
        "h": "bias" if cell == "lstm" else None,
    }
    tree = {}
    for gate, wg, bg, ug in zip(
        gates or [""], split(w), split(b), split(u), strict=True
    ):
        tree[f"i{gate}"] = {"kernel": wg} | ({"bias": bg} if biased["i"] else {})
        tree[f"h{gate}"] = {"kernel": ug} | ({"bias": bg} if biased["h"] else {})
    if cell == "gru":
        tree["hn"]["bias"] = np.asarray(layer["recurrent"]["bias"])
    return tree


@pytest.mark.thorough(
    "networks of Flax; test_linen_twins.py has the GRU's, test_reference_models.py "
    "the other cells by torch"
)
@each_cell
def test_network_equals_its_linen_twin(cell):
    model = network(cell, outputs="every")
    params, x = drawn(model), inputs(3, 5, 2)
    twin = nn.RNN(TWINS[cell][0](3, dtype=jnp.float64, param_dtype=jnp.float64))
    tree = linen_params(cell, params)
    tree = (
        {"cell": {"i": tree["i"], "h": tree["h"]}}
        if cell == "vanilla"
        else {"cell": tree}
    )
    hidden = np.asarray(jax.jit(twin.apply)({"params": tree}, jnp.array(x)))
    own = jax.tree.map(np.asarray, params["output"])
    expected = hidden @ own["weights"] + own["bias"]
    np.testing.assert_allclose(
        jax.jit(model.apply)(params, x), expected, rtol=BOUND, atol=BOUND
    )


def objective_of(model, batch, seed=5):
    """A scalar whose gradient is dense: the outputs weighted at random, then
    squared.
    """

    def objective(params, values=batch.values):
        outputs = model.apply(params, Sequences(values, batch.length))
        return jnp.sum(outputs * jnp.array(inputs(*outputs.shape, seed=seed))) ** 2

    return objective


@pytest.mark.thorough(
    "differences; test_linen_twins.py has the gradient of a GRU with lengths, "
    "test_reference_models.py those of the other cells"
)
@each_cell
def test_gradient_equals_finite_differences(cell):
    model = network(cell, num_layers=2, outputs="every")
    params = drawn(model)
    objective = jax.jit(
        objective_of(model, Sequences(jnp.array(inputs(3, 5, 2)), jnp.array(LENGTH)))
    )
    direction = jax.tree.map(np.asarray, drawn(model, seed=3))
    own = jax.tree.map(np.asarray, params)
    at = lambda h: objective(jax.tree.map(lambda p, d: p + h * d, own, direction))
    central = lambda h: (at(h) - at(-h)) / (2 * h)
    expected = (
        4 * central(1e-3) - central(2e-3)
    ) / 3  # Richardson: the error is of order h⁴.
    gradient = jax.jit(jax.grad(objective))(params)
    slope = sum(jax.tree.leaves(jax.tree.map(np.vdot, gradient, direction)))
    np.testing.assert_allclose(slope, expected, rtol=1e-7)


@pytest.mark.on_ci(
    "test_network_equals_the_loop_over_time_written_out has several lengths"
)
@pytest.mark.thorough("the other cells", but="lstm")
@each_cell
def test_what_stands_after_the_end_changes_no_bit(cell):
    for options in ({}, {"outputs": "every", "num_layers": 2}):
        model = network(cell, **options)
        params, clean = drawn(model), inputs(3, 5, 2)
        run = jax.jit(
            lambda p, v, model=model: jax.value_and_grad(
                objective_of(model, Sequences(v, LENGTH))
            )(p)
        )
        seen = []
        for filling in (0.0, 1e300, np.nan):
            values = np.where(
                np.arange(5)[None, :, None] < LENGTH[:, None, None], clean, filling
            )
            seen.append(
                b"".join(
                    np.asarray(leaf).tobytes()
                    for leaf in jax.tree.leaves(run(params, values))
                )
            )
        assert seen[0] == seen[1] == seen[2]
        assert run(params, clean + 1)[0] != run(params, clean)[0]


@pytest.mark.thorough(
    "symbols; test_what_stands_after_the_end_changes_no_bit has numbers, "
    "test_transformer.py symbols"
)
def test_symbols_after_the_end_change_no_bit():
    model = network("lstm", embedding=3)
    params = drawn(model)
    run = jax.jit(
        lambda p, v: jax.value_and_grad(objective_of(model, Sequences(v, LENGTH)))(p)
    )
    inside = np.arange(5)[None] < LENGTH[:, None]
    seen = [
        run(params, np.where(inside, np.array([[1, 0, 1, 1, 0]]), filling))
        for filling in (0, 1, -7, 99)
    ]
    for other in seen[1:]:
        jax.tree.map(np.testing.assert_array_equal, seen[0], other)


@pytest.mark.on_ci("six forms of a batch; nothing shorter shows this")
@pytest.mark.thorough("the other cells", but="lstm")
@each_cell
def test_order_of_the_batch_and_leading_axes_do_not_matter(cell):
    model = network(cell)
    params, x, length = drawn(model), inputs(4, 5, 2), np.array([5, 1, 3, 2])
    run = jax.jit(model.apply)
    plain, order = run(params, Sequences(x, length)), np.array([2, 0, 3, 1])
    np.testing.assert_allclose(
        run(params, Sequences(x[order], length[order])),
        plain[order],
        rtol=1e-14,
        atol=1e-15,
    )
    folded = run(params, Sequences(x.reshape(2, 2, 5, 2), length.reshape(2, 2)))
    np.testing.assert_allclose(folded, plain.reshape(2, 2, 4), rtol=1e-14, atol=1e-15)
    alone = run(
        params, Sequences(x[2], length[2])
    )  # One example; and what its padding adds is nothing.
    np.testing.assert_allclose(alone, plain[2], rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(run(params, x[2, :3]), plain[2], rtol=1e-13, atol=1e-14)
    mapped = jax.jit(jax.vmap(model.apply, (None, 0)))(
        params, Sequences(jnp.array(x), jnp.array(length))
    )
    np.testing.assert_allclose(mapped, plain, rtol=1e-13, atol=1e-14)


@pytest.mark.on_ci(
    "two windows in two layers; test_reference_models.py has an LSTM that starts at a "
    "given carry"
)
@pytest.mark.thorough("the other cells", but="lstm")
@each_cell
def test_carry_from_window_to_window_is_the_whole(cell):
    whole = network(cell, num_layers=2, outputs="every")
    windows = models.recurrence(2, 3, 4, cell=cell, num_layers=2)
    params, x, length = drawn(whole), inputs(3, 5, 2), np.array([5, 1, 3])
    expected = jax.jit(whole.apply)(params, Sequences(x, length))
    advance = jax.jit(windows.advance)
    first, carry = advance(
        params, Sequences(x[:, :2], np.minimum(length, 2)), windows.start((3,))
    )
    second, carry = advance(
        params, Sequences(x[:, 2:], np.maximum(length - 2, 0)), carry
    )
    np.testing.assert_allclose(
        np.concatenate([first, second], axis=1), expected, rtol=BOUND, atol=BOUND
    )
    own = jax.tree.map(np.asarray, params["output"])
    last = np.asarray(carry[-1][0]) @ own["weights"] + own["bias"]
    np.testing.assert_allclose(
        last, expected[np.arange(3), length - 1], rtol=BOUND, atol=BOUND
    )


@pytest.mark.thorough(
    "a window in two layers; the law is in "
    "test_truncated_gradient_of_a_linear_network_is_the_truncated_sum, a network's "
    "window in test_modern.py"
)
@each_cell
def test_window_cuts_the_gradient_where_a_stopped_carry_does(cell):
    model = network(cell, num_layers=2, outputs="every", window=2)
    windows = models.recurrence(2, 3, 4, cell=cell, num_layers=2)
    params, x = drawn(model), jnp.array(inputs(3, 5, 2))

    def by_hand(params):
        carry, outputs = windows.start((3,)), []
        for start in (0, 2, 4):
            carry = jax.lax.stop_gradient(carry)
            seen, carry = windows.advance(params, x[:, start : start + 2], carry)
            outputs.append(seen)
        outputs = jnp.concatenate(outputs, axis=1)
        return jnp.sum(outputs * jnp.array(inputs(*outputs.shape, seed=5))) ** 2

    objective = objective_of(model, Sequences(x, jnp.array([5, 5, 5])))
    close = functools.partial(np.testing.assert_allclose, rtol=BOUND, atol=BOUND)
    jax.tree.map(
        close, *(jax.jit(jax.value_and_grad(f))(params) for f in (objective, by_hand))
    )


@pytest.mark.thorough(
    "three networks; test_truncated_gradient_of_a_linear_network_is_the_truncated_sum "
    "has a window of the whole, and none"
)
@each_cell
def test_window_of_the_whole_is_the_full_gradient(cell):
    x = Sequences(jnp.array(inputs(3, 5, 2)), jnp.array(LENGTH))
    full, whole, cut = (network(cell, window=window) for window in (None, 5, 3))
    params = drawn(full)
    found = [
        jax.jit(jax.value_and_grad(objective_of(model, x)))(params)
        for model in (full, whole, cut)
    ]
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=BOUND, atol=BOUND),
        found[0],
        found[1],
    )
    np.testing.assert_allclose(found[2][0], found[0][0], rtol=BOUND)
    one, other = (
        gradient["layer_1"]["recurrent"]["weights"]
        for _, gradient in (found[0], found[2])
    )
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.on_ci(
    "several keys; test_dropout_has_its_rate_between_layers_and_before_the_output has "
    "one"
)
def test_dropout_needs_a_key_and_draws_anew_with_each():
    model = network("gru", num_layers=2, dropout=0.5)
    params, x, key = drawn(model), inputs(3, 5, 2), jax.random.key(0)
    noisy = jax.jit(model.apply)
    plain = jax.jit(network("gru", num_layers=2).apply)(params, x)
    np.testing.assert_array_equal(noisy(params, x), plain)
    seen = [noisy(params, x, jax.random.fold_in(key, i)) for i in (0, 0, 1)]
    np.testing.assert_array_equal(seen[0], seen[1])
    assert len({float(np.abs(a - plain).max()) for a in seen} | {0.0}) == 3


def test_dropout_has_its_rate_between_layers_and_before_the_output():
    """The first layer gives tanh(1), and the second and the output hand on what they
    get: dropout at 1/5 leaves 4/5 of it each time, and multiplies that by 5/4.
    """
    model = models.recurrent(2, 3, 3, cell="vanilla", num_layers=2, dropout=0.2)
    params = jax.tree.map(jnp.zeros_like, drawn(model))
    params["layer_1"]["input"]["bias"] = jnp.ones(3)
    params["layer_2"]["input"]["weights"] = params["output"]["weights"] = jnp.eye(3)
    found = jax.jit(model.apply)(params, np.zeros((2000, 1, 2)), jax.random.key(1))
    kept = np.asarray(found) != 0
    np.testing.assert_allclose(found[kept], np.tanh(np.tanh(1) / 0.8) / 0.8)
    # Four standard deviations of a share.
    assert abs(kept.mean() - 0.8**2) < 4 * np.sqrt(0.64 * 0.36 / kept.size)


@pytest.mark.on_ci("a draw of each layer; test_initialisers.py has orthogonal weights")
@pytest.mark.thorough("the other cells", but="lstm")
@each_cell
def test_first_parameters_are_orthogonal_bounded_and_ready_to_keep(cell):
    model = models.recurrent(2, 6, 4, cell=cell, embedding=3, dtype=jnp.float32)
    params = model.init(jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    layer = params["layer_1"]
    for block in np.split(
        np.asarray(layer["recurrent"]["weights"], float), CELLS[cell].num_blocks, axis=1
    ):
        np.testing.assert_allclose(block @ block.T, np.eye(6), atol=1e-6)
    weights = layer["input"]["weights"]
    assert 0.7 * (6 / 9) ** 0.5 < np.abs(weights).max() <= (6 / 9) ** 0.5
    bias = np.zeros(6 * CELLS[cell].num_blocks)
    bias[6:12] = cell == "lstm"
    np.testing.assert_array_equal(layer["input"]["bias"], bias)


def linear(p, q, carry):
    return (p + q,), ()


LINEAR = CELLS["vanilla"]._replace(
    advance=linear,
    slopes=lambda kept, before, after: jnp.ones_like(after[0]),
)


@pytest.mark.on_ci("no window, and a window of the whole", but="3")
@pytest.mark.thorough("the other windows", but="None|3|4")
@pytest.mark.parametrize("window", [None, 1, 2, 3, 4])
def test_truncated_gradient_of_a_linear_network_is_the_truncated_sum(window):
    """h_t = W x_t + U h_(t-1): the loss Σ_t v_t h_t has dU = Σ_t Σ_s h_(s-1)ᵀ (v_t
    (Uᵀ)^(t - s)), s in the window of t.
    """
    x, v, w, u = (
        inputs(*shape, seed=i)
        for i, shape in enumerate([(4, 1, 2), (4, 3), (2, 3), (3, 3)])
    )
    params = {
        "input": {"weights": jnp.array(w), "bias": jnp.zeros(3)},
        "recurrent": {"weights": jnp.array(u)},
    }

    def loss(params):
        (h,) = unroll(LINEAR, params, jnp.array(x), (jnp.zeros((1, 3)),), window)
        return jnp.sum(h[:, 0] * v)

    h = [np.zeros(3)]
    for row in x[:, 0]:
        h.append(row @ w + h[-1] @ u)
    expected = np.zeros((3, 3))
    for t in range(1, 5):
        opened = 1 if window is None else (t - 1) // window * window + 1
        for s in range(opened, t + 1):
            # The step at which a window opens still reads the carry, as a constant.
            expected += np.outer(
                h[s - 1], v[t - 1] @ np.linalg.matrix_power(u.T, t - s)
            )
    np.testing.assert_allclose(
        jax.jit(jax.grad(loss))(params)["recurrent"]["weights"],
        expected,
        rtol=BOUND,
        atol=BOUND,
    )


@pytest.mark.on_ci(
    "second derivatives; "
    "test_truncated_gradient_of_a_linear_network_is_the_truncated_sum has a first one"
)
@pytest.mark.thorough("the other cells", but="vanilla")
@pytest.mark.parametrize(
    ("cell", "window"), [("vanilla", None), ("gru", None), ("lstm", 2)]
)
def test_forward_mode_and_second_derivatives_agree_with_the_plain_loop(cell, window):
    model = network(cell, outputs="every")
    params, direction, x = (
        drawn(model),
        drawn(model, seed=3),
        jnp.array(inputs(1, 4, 2)),
    )
    kind, weigh = CELLS[cell], jnp.array(inputs(4, 3))

    def ours(params):
        return (
            jnp.sum(
                weigh
                * unroll(kind, params["layer_1"], x[0][:, None], start, window)[0][:, 0]
            )
            ** 2
        )

    def plain(params):
        layer, carry, total = params["layer_1"], start, 0.0
        bias = (
            jnp.concatenate([jnp.zeros(6), layer["recurrent"]["bias"]])[None]
            if cell == "gru"
            else 0.0
        )
        for t in range(4):
            if window and t % window == 0:
                carry = jax.lax.stop_gradient(carry)
            p = x[:, t] @ layer["input"]["weights"] + layer["input"]["bias"][None]
            carry, _ = kind.advance(
                p, carry[0] @ layer["recurrent"]["weights"] + bias, carry
            )
            total += jnp.sum(weigh[t] * carry[0][0])
        return total**2

    start = (jnp.zeros((1, 3)),) * kind.num_carried

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(f, params, direction):
        along = lambda p: jax.jvp(f, (p,), (direction,))[1]
        forward_over_reverse = jax.jvp(jax.grad(f), (params,), (direction,))[1]
        return (
            along(params),
            jax.grad(f)(params),
            forward_over_reverse,
            jax.grad(along)(params),
        )

    found, expected = (derivatives(f, params, direction) for f in (ours, plain))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11),
        found,
        expected,
    )
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11),
        found[2],
        found[3],
    )


def loops(jaxpr):
    """The bodies of all scans in a jaxpr."""
    for eqn in jaxpr.eqns:
        for sub in jax.tree.leaves(
            list(eqn.params.values()),
            is_leaf=lambda p: hasattr(p, "jaxpr") or hasattr(p, "eqns"),
        ):
            inner = getattr(sub, "jaxpr", sub)
            if hasattr(inner, "eqns"):
                if eqn.primitive.name == "scan":
                    yield inner
                yield from loops(inner)


@pytest.mark.thorough("the other cells", but="lstm")
@each_cell
def test_a_loop_over_time_has_the_product_of_h_and_no_other(cell):
    model = network(cell, outputs="every")
    params, x = drawn(model), jnp.array(inputs(3, 5, 2))
    gradient = jax.grad(lambda p: jnp.sum(model.apply(p, x) ** 2))
    bodies = list(loops(jax.make_jaxpr(gradient)(params).jaxpr))
    assert {
        sum(eqn.primitive.name == "dot_general" for eqn in body.eqns) for body in bodies
    } == {1}
    # One loop forward, one back; the differential at 0 of a loop that is linear is not
    # kept in the program.
    assert jax.jit(gradient).lower(params).as_text().count("stablehlo.while") == 2


def predict(x, **options):
    model = network("gru", **options)
    return model.apply(drawn(model), x)


REFUSED = [
    (
        lambda: models.recurrent(0, 3, 4),
        "num_inputs must be a positive integer; got num_inputs=0",
    ),
    (lambda: models.recurrent(2, 3, 4, window=0), "window must be"),
    (lambda: models.recurrent(2, 3, 4, embedding=0), "embedding must be"),
    (
        lambda: models.recurrent(2, 3, 4, cell="rnn"),
        "cell must be one of vanilla, gru, lstm; got cell='rnn'",
    ),
    (
        lambda: models.recurrent(2, 3, 4, outputs="all"),
        'outputs must be "last", "mean" or "every"',
    ),
    (lambda: models.recurrent(2, 3, 4, dropout=1.0), "dropout must lie in"),
    (
        lambda: predict(np.ones((3, 5))),
        r"x must have shape \(..., T, 2\); got \(3, 5\)",
    ),
    (lambda: predict(np.ones((3, 0, 2))), "at least one step"),
    (lambda: predict(np.ones((3, 5)), embedding=2), "x must be integer symbols"),
    (lambda: predict(Sequences(np.ones((3, 5, 2)), np.ones(2, int))), "leading axes"),
    (
        lambda: predict(Sequences(np.ones((3, 5, 2)), np.array([5, 0, 6]))),
        "the length of sequence 1 is 0",
    ),
    (
        lambda: models.check_sequences(
            Sequences(np.ones((3, 5, 2)), np.array([5, 0, 1]))
        ),
        "1..5; the length of sequence 1 is 0",
    ),
    (
        lambda: models.check_sequences(
            Sequences(np.ones((3, 5, 2)), np.array([5, 1, 6]))
        ),
        "the length of sequence 2 is 6",
    ),
    (
        lambda: (net := models.recurrence(2, 3, 4)).advance(
            drawn(net), np.ones((6, 5, 2)), net.start((3,))
        ),
        (
            r"carry must have arrays of shape \(6, 3\) for this x; got \[\(3, 3\)\]. "
            r"Pass start"
        ),
    ),
    (
        lambda: models.check_sequences(Sequences(np.full((1, 5), 2), np.array([1])), 2),
        "tokens must lie in 0..1",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.on_ci("300 steps; nothing shorter shows this")
def test_lengths_of_eight_bits_reach_as_far_as_any():
    model = models.recurrent(1, 3, 2)
    params, x = (
        drawn(model),
        np.random.default_rng(0).normal(size=(2, 300, 1)),
    )
    x[:, 120:] = np.nan  # Padding.
    run = jax.jit(model.apply)
    long, short = (
        run(params, Sequences(x, np.array([100, 120], dtype)))
        for dtype in (np.int32, np.uint8)
    )
    np.testing.assert_array_equal(short, long)
    assert np.isfinite(long).all()


@pytest.mark.on_ci("a network in bfloat16; nothing shorter shows this")
@pytest.mark.thorough("the other cells", but="vanilla")
@each_cell
def test_half_precision_is_drawn_and_computed(cell):
    model = models.recurrent(2, 3, 4, cell=cell, dtype=jnp.bfloat16)
    params = model.init(jax.random.key(0))
    found = jax.jit(model.apply)(params, np.ones((5, 2), jnp.bfloat16))
    assert found.dtype == jnp.bfloat16


def test_sequences_that_are_right_pass():
    models.check_sequences(Sequences(np.ones((3, 5, 2)), LENGTH))
    models.check_sequences(Sequences(np.array([[0, 1, 99]]), np.array([2])), 2)


@pytest.mark.on_ci("inputs and params of two dtypes; nothing shorter shows this")
def test_inputs_of_more_digits_than_the_params_are_not_cut():
    model = models.recurrent(2, 3, 1, dtype=jnp.float32)
    params, x = (
        drawn(model),
        np.random.default_rng(0).normal(size=(4, 2)),
    )
    wide = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    run = jax.jit(model.apply)
    assert run(params, x.astype(np.float32)).dtype == jnp.float32
    np.testing.assert_array_equal(run(params, x), run(wide, x))


def test_a_plain_tuple_for_sequences_is_told_what_to_write():
    x, length = jnp.ones((2, 5, 3)), jnp.array([2, 3])
    encoder = models.transformer_encoder(10, 8, 3, width=8, num_layers=1, num_heads=2)
    for model, values in (
        (models.recurrent(3, 4, 2), x),
        (encoder, x[..., 0].astype(int)),
    ):
        params = jax.eval_shape(model.init, jax.random.key(0))
        of_a_tuple = functools.partial(model.apply, x=(values, length))
        with pytest.raises(
            TypeError,
            match=r"Sequences\(values, length\); got a plain tuple of length 2",
        ):
            jax.eval_shape(of_a_tuple, params)
