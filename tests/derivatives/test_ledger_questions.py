"""Laws of first_nonfinite and at_kinks: the planted NaN is found where it was planted;
ties are found, and only ties.
"""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from research.derivatives import explain

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

F32 = jnp.float32


def masked_root(x):
    return jnp.sum(
        jnp.where(
            x > 0,
            jnp.sqrt(x),  # here
            0.0,
        )
    )


def log_of_zero(x):
    p = x * 0
    q = jnp.log(p)  # here
    return q * x


def zero_by_zero(x):
    a, b = x - 1, x**2 - 1
    c = a / b  # here
    return jnp.tanh(c)


def power_of_zero(x, y):
    z = x**y  # here
    return z * 3 + x


def norm_of_zero(x):
    y = x * 2
    n = jnp.sqrt(jnp.sum(y * y))  # here
    return n + jnp.sum(x)


def arccos_of_one(x):
    angle = jnp.arccos(jnp.cos(x))  # here
    return angle**2


def all_masked(x):
    scores = jnp.where(jnp.array([False, False]), x, -jnp.inf)
    m = jnp.max(scores)
    e = scores - m  # here
    return jnp.log(jnp.sum(jnp.exp(e))) + m


def no_spread(x):
    d = x - jnp.mean(x)
    s = jnp.sqrt(jnp.mean(d**2))
    z = d / s  # here
    return jnp.sum(z)


def overflow(x):
    e = jnp.exp(x)  # here
    return jnp.sum((e / jnp.sum(e)) ** 2)


def log_softmax_by_hand(x):
    p = jnp.exp(x) / jnp.sum(jnp.exp(x))
    logs = jnp.log(p)  # here
    return logs[1]


def angle_of_nothing(x, y):
    a = jnp.arctan2(y, x)  # here
    return a + x


def negative_power(x):
    r = x**-2  # here
    return 1 / (1 + r)


def masked_log(x):
    y = jnp.log(x)  # here
    return jnp.sum(jnp.where(x > 0, y, 0.0))


def masked_product(x):
    y = jnp.log(x)  # here
    return jnp.sum(jnp.where(x > 0, x * y, 0.0))


@jax.custom_jvp
def own_rule(x):
    return jnp.abs(x)


@own_rule.defjvp
def forwards(point, change):
    factor = point[0] / jnp.abs(point[0])  # here
    return own_rule(point[0]), factor * change[0]


def forward_rule(x):
    return own_rule(x) + x


@jax.custom_vjp
def own_reverse(x):
    return x * x


def _backwards(x, adjoint):
    factor = 1 / x
    return (adjoint * factor,)


own_reverse.defvjp(lambda x: (x * x, x), _backwards)


def reverse_rule(x):
    # JAX gives the rows of a reverse rule the line of the call.
    y = own_reverse(x)  # here
    return y * 2


# function, arguments, (primitive, backward, function that holds the line)
BUGS = {
    "sqrt at 0 under where": (
        masked_root,
        (jnp.array([1.0, 0.0]),),
        "sqrt",
        True,
        masked_root,
    ),
    "log of 0": (log_of_zero, (2.0,), "log", False, log_of_zero),
    "0 / 0": (zero_by_zero, (1.0,), "div", False, zero_by_zero),
    "power at 0": (power_of_zero, (0.0, 0.5), "pow", True, power_of_zero),
    "norm at 0": (norm_of_zero, (jnp.zeros(3),), "sqrt", True, norm_of_zero),
    "arccos at 1": (arccos_of_one, (0.0,), "acos", True, arccos_of_one),
    "all masked": (all_masked, (jnp.ones(2),), "sub", False, all_masked),
    "division by no spread": (no_spread, (jnp.ones(4),), "div", False, no_spread),
    "overflow in float32": (
        overflow,
        (jnp.array([100.0, 1.0], F32),),
        "exp",
        False,
        overflow,
    ),
    "log softmax by hand": (
        log_softmax_by_hand,
        (jnp.array([0.0, -800.0]),),
        "log",
        False,
        log_softmax_by_hand,
    ),
    "arctan2 at the origin": (
        angle_of_nothing,
        (0.0, 0.0),
        "atan2",
        True,
        angle_of_nothing,
    ),
    "negative power of 0": (
        negative_power,
        (0.0,),
        "integer_pow",
        True,
        negative_power,
    ),
    "log of 0 under where": (
        masked_log,
        (jnp.array([1.0, 0.0]),),
        "log",
        True,
        masked_log,
    ),
    "infinite factor under where": (
        masked_product,
        (jnp.array([1.0, 0.0]),),
        "log",
        False,
        masked_product,
    ),
    "rule of a custom_jvp": (forward_rule, (0.0,), "div", True, forwards),
    "rule of a custom_vjp": (reverse_rule, (0.0,), "div", True, reverse_rule),
}


@pytest.mark.on_ci(
    "near relatives of the others",
    but=r"^(sqrt at|log of 0|0 / 0|norm|overflow|infinite|rule of)",
)
@pytest.mark.parametrize("name", BUGS)
def test_planted_bug_is_found_with_its_primitive_and_line(name):
    f, args, primitive, backward, holder = BUGS[name]
    ledger = explain(f, *args)
    spoilt = [ledger.value, *jax.tree.leaves(ledger.grads)]
    assert not all(np.isfinite(np.asarray(value, float)).all() for value in spoilt)
    found = ledger.first_nonfinite()
    assert (found.primitive, found.backward) == (primitive, backward)
    lines, first = inspect.getsourcelines(holder)
    place = first + next(i for i, line in enumerate(lines) if "# here" in line)
    assert found.source == f"test_ledger_questions.py:{place}"
    assert found.sentence.startswith(
        "In the backward pass" if backward else "In the forward pass"
    )
    assert f"{primitive} ({found.name}, {found.source})" in found.sentence


def test_infinite_factor_is_said_to_spoil_the_backward_pass():
    sentence = explain(masked_product, jnp.array([1.0, 0.0])).first_nonfinite().sentence
    assert sentence.endswith(
        "gives -inf (entry [1] of [0, -inf]), from which the backward pass computes a "
        "NaN or an infinity."
    )


def test_bugs_are_more_than_ten_of_both_kinds():
    assert sum(bug[3] for bug in BUGS.values()) >= 5
    assert sum(not bug[3] for bug in BUGS.values()) >= 5


@pytest.mark.on_ci(
    (
        "logsumexp; "
        "test_what_stays_finite_is_not_accused_and_a_rule_that_gives_nan_is_named has "
        "softmax"
    ),
    but=r"-(0\.0|1\.0_2)\]",
)
@pytest.mark.thorough("a masked softmax", but=r"^<lambda>-(0.0|1.0_0|1.0_2)\]")
@pytest.mark.parametrize(
    ("f", "x"),
    [
        (lambda x: jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0), 0.0),
        (lambda x: jax.nn.logsumexp(jnp.array([x, -jnp.inf])), 1.0),
        (
            lambda x: jnp.sum(
                jax.nn.softmax(jnp.where(jnp.arange(3) < 2, x, -jnp.inf))[0]
            ),
            1.0,
        ),
        (lambda x: x * jax.lax.stop_gradient(jnp.tanh(jnp.log(x * 0))), 1.0),
    ],
)
def test_what_is_finite_has_no_origin_though_an_infinity_is_inside(f, x):
    assert np.isfinite(jax.grad(f)(x))
    assert explain(f, x).first_nonfinite() is None


def test_input_that_is_not_finite_is_named():
    found = explain(lambda x, y: x * y, 1.0, math.nan).first_nonfinite()
    assert (found.name, found.primitive) == ("y", "input")
    assert found.sentence == "The input y is not finite: nan."


@pytest.mark.thorough("arrays of one and two dimensions", but="[25]")
@pytest.mark.parametrize("seed", range(8))
def test_first_bad_entry_of_a_long_array_is_told_with_its_index(seed):
    generator = np.random.default_rng(seed)
    shape = [(50,), (6, 9), (3, 4, 5)][seed % 3]
    x, bad = (
        generator.uniform(1, 2, shape),
        sorted(generator.choice(math.prod(shape), 3, replace=False)),
    )
    first = tuple(int(i) for i in np.unravel_index(bad[0], shape))
    told = f"(entry [{', '.join(map(str, first))}] of ["
    forward = explain(
        lambda x: jnp.sum(jnp.log(x)), put(x, bad, [-1.0, 0.0, -2.0])
    ).first_nonfinite()
    assert (forward.index, str(forward.value)) == (first, "nan")
    assert f"at -1 {told}" in forward.sentence
    assert f"gives nan {told}" in forward.sentence
    given = explain(jnp.sum, put(x, bad, [-math.inf, math.nan, 1.0])).first_nonfinite()
    assert (given.index, given.value) == (first, -math.inf)
    assert given.sentence.startswith(f"The input a is not finite: -inf {told}")
    guarded = lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))
    backward = explain(guarded, put(x, bad, [0.0, 0.0, 0.0])).first_nonfinite()
    assert (backward.index, backward.backward) == (first, True)
    assert f"passes on nan {told}" in backward.sentence
    masked = lambda x: jnp.sum(
        jnp.where(x < 3, x, -jnp.inf) * jnp.where(x == 5, 0.0, 1.0)
    )
    ready = put(x, bad, [4.0, 5.0, 4.0])
    assert explain(masked, ready).first_nonfinite().index == tuple(
        int(i) for i in np.argwhere(np.asarray(ready) == 5)[0]
    )


def put(x, places, values):
    return (
        jnp.asarray(x)
        .ravel()
        .at[jnp.array(places)]
        .set(jnp.array(values))
        .reshape(x.shape)
    )


X3 = jnp.array([1.0, 0.0, 2.0])
TIED, ONES = jnp.array([2.0, 1.0, 2.0]), jnp.ones(3)
RANK_ONE = jnp.array([[1.0, 2.0], [2.0, 4.0]])
KINKS = {
    "max": (lambda x: jnp.maximum(x, 2 * x), 0.0, "max"),
    "min": (lambda x: jnp.sum(jnp.minimum(x, 1.0)), X3, "min"),
    "abs": (lambda x: jnp.sum(jnp.abs(x)), X3, "abs"),
    "relu": (lambda x: jnp.sum(jax.nn.relu(x)), X3, "gt"),
    "where": (lambda x: jnp.where(x > 0, x, -x), 0.0, "gt"),
    "cond": (lambda x: jax.lax.cond(x < 0, jnp.sin, jnp.tanh, x), 0.0, "lt"),
    "largest": (lambda x: jnp.max(x), jnp.array([1.0, 3.0, 3.0]), "reduce_max"),
    "smallest of a row": (
        lambda x: jnp.sum(jnp.min(x, axis=1)),
        jnp.array([[1.0, 3.0], [2.0, 2.0]]),
        "reduce_min",
    ),
    "argmax": (lambda x: x[jnp.argmax(x)] ** 2, jnp.array([3.0, 1.0, 3.0]), "argmax"),
    "sort": (
        lambda x: jnp.sum(jnp.sort(x) * jnp.arange(3)),
        jnp.array([1.0, 3.0, 1.0]),
        "sort",
    ),
    "round": (lambda x: jnp.round(x) * x, 1.5, "round"),
    "floor": (lambda x: jnp.floor(x) * x, 2.0, "floor"),
    "sign": (lambda x: jnp.sign(x) * x, 0.0, "sign"),
    "sqrt": (lambda x: jnp.sqrt(x), 0.0, "sqrt"),
    "clamp": (lambda x: jax.lax.clamp(0.0, x, 1.0), 1.0, "clamp"),
    "argsort": (lambda x: jnp.sum(X3 * x[jnp.argsort(x)]), TIED, "sort"),
    "ranks": (lambda x: jnp.sum(X3[jnp.argsort(x)] * x**2), TIED, "sort"),
    "lexsort": (lambda x: jnp.sum(X3 * x[jnp.lexsort((x, ONES))]), TIED, "sort"),
    "top_k": (lambda x: jnp.sum(X3[:2] * x[lax.top_k(x, 2)[1]]), TIED, "top_k"),
    "int": (lambda x: jnp.sum(x.astype(int) * x), -TIED, "convert_element_type"),
    "bool": (lambda x: jnp.sum(x.astype(bool) * X3), X3, "convert_element_type"),
    "switch": (
        lambda x: lax.switch(jnp.int32(x), [jnp.sin, jnp.cos], x),
        1.0,
        "convert_element_type",
    ),
    "nuclear norm": (lambda x: jnp.linalg.norm(x, "nuc"), RANK_ONE, "svd"),
    "second singular value": (
        lambda x: jnp.linalg.svd(x, compute_uv=False)[1],
        jnp.eye(2),
        "svd",
    ),
    "largest eigenvalue": (lambda x: jnp.linalg.eigvalsh(x)[-1], jnp.eye(2), "eigh"),
    "eigenvector": (lambda x: jnp.linalg.eigh(x)[1][0, 0], jnp.eye(2), "eigh"),
    "atan2": (lambda x: jnp.arctan2(x[0], x[1]), jnp.array([0.0, -1.0]), "atan2"),
    "angle": (lambda x: jnp.angle(lax.complex(*x)), jnp.array([-1.0, 0.0]), "atan2"),
    "complex sqrt": (
        lambda x: jnp.sqrt(lax.complex(*x)).imag,
        jnp.array([-1.0, 0.0]),
        "sqrt",
    ),
    "complex log": (
        lambda x: jnp.log(lax.complex(*x)).imag,
        jnp.array([-1.0, 0.0]),
        "log",
    ),
    "complex arcsin": (
        lambda x: jnp.arcsin(lax.complex(*x)).imag,
        jnp.array([2.0, 0.0]),
        "asin",
    ),
    "complex power": (
        lambda x: (lax.complex(*x) ** 0.5).imag,
        jnp.array([-1.0, 0.0]),
        "pow",
    ),
}


@pytest.mark.on_ci(
    "operations that resemble others",
    but=r"^(?!argmax|round|sign|sqrt|argsort|bool|eigenvector|complex)",
)
@pytest.mark.thorough(
    "near relatives of the others",
    but="^(?!min|small|where|ranks|lex|angle|complex [lap]|nuc|largest e)",
)
@pytest.mark.parametrize("name", KINKS)
def test_tie_is_found_and_none_a_little_beside_it(name):
    f, x, primitive = KINKS[name]
    found = explain(f, x).at_kinks()
    assert [kink.primitive for kink in found] == [primitive]
    assert found[0].source.startswith("test_ledger_questions.py:")
    assert (
        explain(
            f, x + 0.01 * (1 + np.arange(np.size(x)).reshape(np.shape(x)))
        ).at_kinks()
        == []
    )


@pytest.mark.on_ci(
    "functions that resemble others",
    but=r"^(softplus|gelu)|-(x[248]|x1[234]|x23|-1\.0|0\.5_0|0\.0_1)\]",
)
@pytest.mark.thorough(
    "a maximum by scatter, an interpolation, softmax in a loop",
    but=r"^(?!<lambda>-(x20|0.5_1|x24)\])",
)
@pytest.mark.parametrize(
    ("f", "x"),
    [
        (jax.nn.softplus, 0.0),
        (lambda x: jax.nn.logsumexp(jnp.array([x, x])), 1.0),
        (lambda x: jnp.sum(jnp.max(x, axis=1)), jnp.array([[1.0, 3.0], [3.0, 1.0]])),
        (lambda x: x * jnp.max(jnp.ones(3)), 1.0),
        (lambda x: jax.nn.log_softmax(x)[0], jnp.ones(3)),
        (lambda x: x * jax.lax.stop_gradient(jnp.abs(x)), 0.0),
        (jax.nn.gelu, 0.0),
        (lambda x: jnp.where(jnp.isnan(x), 0.0, x), 1.0),
        # What treats equal values alike is smooth in them, as the trace is.
        (lambda x: jnp.linalg.norm(x, "nuc"), jnp.eye(2)),
        (lambda x: jnp.linalg.norm(x, 2), RANK_ONE),
        (lambda x: jnp.sum(jnp.linalg.svd(x, compute_uv=False) ** 2), RANK_ONE),
        (lambda x: jnp.sum(jnp.linalg.eigvalsh(x) ** 3), jnp.eye(2)),
        (lambda x: jnp.linalg.slogdet(x)[1], jnp.eye(2)),
        (lambda x: lax.sort_key_val(ONES, x)[1] @ X3, X3),
        (lambda x: jnp.sum(x.astype(int) * x), jnp.zeros(3)),
        (lambda x: jnp.sum(x.astype("float32")), TIED),
        (lambda x: jnp.sqrt(x.astype(complex)).imag, -1.0),
        (lambda x: (lax.complex(*x) ** 2).real, jnp.array([-1.0, 0.0])),
        (lambda x: jnp.searchsorted(X3, x) * x, 0.5),
        (lambda x: jnp.interp(x, jnp.arange(3.0), X3), 0.5),
        (lambda x: ONES.at[jnp.array([0, 0, 1])].max(x) @ X3, TIED + X3),
        # Loops whose steps are smooth.
        (lambda x: lax.scan(lambda c, a: (jnp.tanh(c + a), c), x, X3)[0], 0.0),
        (lambda x: lax.fori_loop(0, 3, lambda i, c: jnp.sin(c) * i, x), 0.0),
        (lambda x: lax.map(jax.nn.softplus, x).sum(), X3),
        (lambda x: lax.map(jax.nn.softmax, x[None])[0, 0], ONES),
        (lambda x: lax.map(lambda a: jnp.where(a > 0, a, 1.0) * x, X3).sum(), 1.0),
    ],
)
def test_smooth_function_has_no_kink(f, x):
    assert explain(f, x).at_kinks() == []


CHOOSING = {
    "argsort": lambda x, w: w * x[jnp.argsort(x)],
    "lexsort": lambda x, w: w * x[jnp.lexsort((x,))],
    "top_k": lambda x, w: w[:3] * x[lax.top_k(x, 3)[1]],
    "scatter": lambda x, w: w[:2] * jnp.full(2, -9.0).at[SEGMENTS].max(x),
    "scatter_min": lambda x, w: w[:2] * jnp.full(2, 1.0).at[SEGMENTS].min(x),
    "rows": lambda x, w: w[:3] * jnp.zeros((2, 3)).at[ROWS].max(x.reshape(2, 3))[0],
    "segment_max": lambda x, w: w[:2] * jax.ops.segment_max(x, SEGMENTS, 2),
    "int": lambda x, w: w * x * x.astype(int),
    "searchsorted": lambda x, w: w * x * jnp.searchsorted(jnp.arange(4.0), x),
    "digitize": lambda x, w: w * x * jnp.digitize(x, jnp.arange(4.0)),
    "reduce": lambda x, w: w * lax.reduce(x, -jnp.inf, larger, (0,)),
    "loop": lambda x, w: lax.map(jnp.abs, w * (x - 1)),
    "sort": lambda x, w: w * jnp.sort(x),
    "floor": lambda x, w: w * x * jnp.floor(x),
}
SEGMENTS, ROWS = jnp.array([0, 0, 0, 1, 1, 1]), jnp.array([0, 0])


def larger(a, b):
    return jnp.where(a > b, a, b)


@pytest.mark.on_ci(
    (
        "conversions to integers, whose ties "
        "test_tie_is_found_and_none_a_little_beside_it has"
    ),
    but=r"^scatter",
)
@pytest.mark.thorough("the other functions", but=r"^(scatter|int)\]")
@pytest.mark.parametrize("name", CHOOSING)
def test_no_kink_that_differences_show_is_missed(name):
    # One-sided differences along random directions are the authority.
    f = lambda x, w: jnp.sum(CHOOSING[name](x, w))
    differences = jax.jit(
        lambda x, w, v, h=1e-6: f(x + h * v, w) - 2 * f(x, w) + f(x - h * v, w)
    )
    rng = np.random.default_rng(0)
    shown = 0
    for _ in range(6):
        x, w = jnp.array(rng.integers(0, 3, 6), float), jnp.array(rng.normal(size=6))
        at = [float(differences(x, w, v)) for v in rng.normal(size=(5, 6))]
        is_kink = np.max(np.abs(at)) > 1e-9
        shown += is_kink
        assert explain(f, x, w).at_kinks() or not is_kink
    assert shown


def test_what_is_not_searched_is_said():
    for f, steps in ((CHOOSING["loop"], ("scan",)), (CHOOSING["reduce"], ())):
        total = lambda x, w, f=f: jnp.sum(f(x, w))
        (kink,) = explain(total, TIED, X3).at_kinks()
        assert kink.sentence.endswith("inside, where at_kinks does not search.")
        if steps:
            inside = explain(total, TIED, X3, expand=steps).at_kinks()
            assert {one.primitive for one in inside} == {"abs"}


def test_kink_says_what_jax_chooses():
    (kink,) = explain(jnp.abs, 0.0).at_kinks()
    assert f"JAX takes the derivative {jax.grad(jnp.abs)(0.0):g}" in kink.sentence
    (kink,) = explain(lambda x: jnp.maximum(x, 0.0), 0.0).at_kinks()
    assert jax.grad(lambda x: jnp.maximum(x, 0.0))(0.0) == 0.5
    assert "each gets half" in kink.sentence


@jax.custom_vjp
def broken_in_reverse(x):
    return 2 * x


broken_in_reverse.defvjp(lambda x: (2 * x, None), lambda saved, adjoint: (jnp.nan,))


def test_what_stays_finite_is_not_accused_and_a_rule_that_gives_nan_is_named():
    masked = lambda a, mask: jnp.sum(jax.nn.softmax(a + mask) ** 2)
    assert (
        explain(masked, jnp.ones(3), jnp.array([0.0, -jnp.inf, 0.0])).first_nonfinite()
        is None
    )
    origin = explain(lambda x: broken_in_reverse(x) + 1, 1.0).first_nonfinite()
    assert origin.backward
    assert "broken_in_reverse" in origin.sentence
    assert origin.sentence.endswith("gives a NaN or an infinity.")


@pytest.mark.parametrize(
    ("f", "x", "words"),
    [
        (
            lambda x: jnp.sum(
                lax.reduce_window(x, -jnp.inf, lax.max, (2,), (2,), "VALID")
            ),
            jnp.ones(4),
            "of a window",
        ),
        (
            lambda x: jnp.sum(
                lax.reduce_window(x, jnp.inf, lax.min, (2,), (1,), "SAME")
            ),
            jnp.array([1.0, 2, 2]),
            "window",
        ),
        (
            lambda x: jnp.sum(
                lax.reduce_window(x, -jnp.inf, lax.max, (2,), (1,), "SAME")
            ),
            jnp.array([1.0, 2, 3]),
            "",
        ),
        (lambda x: x**0.5, 0.0, "its base is 0 and its exponent is below 1"),
        (lambda x: jnp.fmod(x, 1.0), 2.0, "its argument is a multiple"),
        (lambda x: jnp.fmod(x, 1.0), 2.5, ""),
        (jax.scipy.special.i0e, 0.0, "has a kink"),
        (jax.scipy.special.i0e, 0.5, ""),
    ],
)
def test_kinks_of_windows_powers_and_remainders(f, x, words):
    kinks = explain(f, x).at_kinks()
    assert bool(kinks) == bool(words)
    assert all(words in kink.sentence for kink in kinks)


def test_arguments_that_are_gathered_keep_a_name_of_their_own():
    ledger = explain(lambda x1, *xs: x1 * xs[0] ** 2, 2.0, 3.0)
    assert list(ledger.inputs) == ["x1", "xs[0]"]
    assert (float(ledger.gradient("x1")), float(ledger.gradient("xs[0]"))) == (
        9.0,
        12.0,
    )


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_constant_that_is_not_finite_is_named_at_the_row_that_uses_it(bad):
    weights = jnp.ones(500).at[250].set(bad)
    for f in (lambda x: jnp.sum(x * weights), lambda x: jnp.sum(x) * bad):
        found = explain(f, jnp.ones(500)).first_nonfinite()
        assert found.primitive == "mul"
    found = explain(lambda x: jnp.sum(x * weights), jnp.ones(500)).first_nonfinite()
    assert found.index == (250,)
    assert "entry [250]" in found.sentence


@jax.custom_jvp
def twice(x):
    y = jnp.sin(x)
    return y, y


twice.defjvp(lambda p, t: (twice(*p), (jnp.cos(p[0]) * t[0],) * 2))


@jax.custom_vjp
def twice_in_reverse(x):
    y = jnp.sin(x)
    return y, y


twice_in_reverse.defvjp(
    lambda x: (twice_in_reverse(x), jnp.cos(x)), lambda c, cts: (c * (cts[0] + cts[1]),)
)


@pytest.mark.parametrize("rule", [twice, twice_in_reverse])
def test_a_rule_that_returns_the_same_value_twice_counts_it_once(rule):
    def product(x):
        a, b = rule(x)
        return a * b

    found = explain(product, 0.5).grads
    np.testing.assert_allclose(found, np.sin(1.0), rtol=1e-14)


@pytest.mark.parametrize(
    ("values", "is_tie"), [([1.0, 1.0, 2.0], True), ([1.0, 2.0, 1.0], False)]
)
def test_an_equal_running_maximum_is_a_kink(values, is_tie):
    for f, sign in ((lax.cummax, 1.0), (lax.cummin, -1.0)):
        x = sign * jnp.array(values)
        found = explain(lambda x, f=f: jnp.sum(f(x)), x).at_kinks()
        assert bool(found) == is_tie
        back = explain(lambda x, f=f: jnp.sum(f(x, reverse=True)), x[::-1]).at_kinks()
        assert bool(back) == is_tie


@pytest.mark.thorough(
    "1,100 rows; tests/derivatives/test_ledger_pictures.py has functions of 161 and "
    "200 rows"
)
def test_a_long_function_is_walked_without_recursion():
    def long(x):
        x = jnp.log(x)
        for _ in range(1100):
            x = x + 1.0
        return x

    assert explain(long, -1.0).first_nonfinite().primitive == "log"
    (path,) = explain(long, 2.0).paths("x")
    np.testing.assert_allclose(path.derivative, 0.5)


def test_a_scan_without_steps_has_its_carry():
    def f(x):
        return x + jnp.sum(lax.scan(lambda c, _: (c, c), x, None, length=0)[1])

    found = explain(f, 2.0, expand=("scan",)).grads
    assert found == 1.0


TABLE = jnp.sin(jnp.arange(20.0))
SMOOTH_HERE = {
    "determinant": lambda x: jnp.linalg.det(jnp.outer(x, x) + jnp.eye(3)),
    "logarithm of a determinant": lambda x: jnp.linalg.slogdet(
        jnp.outer(x, x) + jnp.eye(3)
    )[1],
    "table at floor": lambda x: jnp.sum(TABLE[jnp.floor(x).astype(int)] * x),
    "table at round": lambda x: jnp.sum(TABLE[jnp.round(x).astype(int)] * x),
    "integer division": lambda x: jnp.sum((x // 0.7) * x**2),
    "parity": lambda x: jnp.sum(
        jnp.where(2 * jnp.floor(x / 2) == jnp.floor(x), x, 1 - x)
    ),
}


@pytest.mark.thorough(
    "determinants; test_smooth_function_has_no_kink has one",
    but="^(?!determinant|logarithm)",
)
@pytest.mark.parametrize("name", SMOOTH_HERE)
def test_equal_whole_numbers_are_no_kink(name):
    for seed in range(3):
        x = jnp.asarray(np.random.default_rng(seed).uniform(1.1, 6.9, 3))
        assert not explain(SMOOTH_HERE[name], x).at_kinks()


@pytest.mark.parametrize(
    "f",
    [
        lambda x: jnp.sum(TABLE[jnp.floor(x).astype(int)] * x),
        lambda x: jnp.sum((x // 0.5) * x),
        lambda x: jnp.sum(TABLE[x.astype(int)] * x),
        lambda x: jnp.sum(jnp.where(jnp.floor(x) == x, x, 0.0)),
    ],
)
def test_whole_numbers_at_their_jump_are_kinks(f):
    assert explain(f, jnp.array([2.0, 3.3])).at_kinks()


@pytest.mark.parametrize(
    ("f", "x", "words"),
    [
        (jnp.log, -1.0, "The computed value of log is not finite, so the gradient is"),
        (lambda x: x / 0, 1.0, "In the forward pass div "),
        (
            jnp.sqrt,
            0.0,
            "so it may not be the derivative. In the backward pass sqrt",
        ),
        (lambda x: abs(x), 0.0, "f may have no derivative there"),
        (lambda x: abs(x) + jnp.abs(x), 0.0, "Other such rows: 1."),
        # Whether the loop is at a kink is not known.
        (
            lambda x: lax.fori_loop(0, 2, lambda i, a: jnp.abs(a - 1.0), x),
            1.0,
            "f may have no derivative there: a row is not searched for ties. scan",
        ),
    ],
)
def test_text_says_that_the_gradient_may_be_no_derivative(f, x, words):
    lines = explain(f, x).text().splitlines()
    assert lines[0].startswith(f"{'f' if '<' in f.__name__ else f.__name__} = ")
    assert words in lines[1]
    assert not lines[2]


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (jnp.log, 1.0),
        (lambda x: abs(x), 1.0),
        (jax.nn.softplus, 0.0),
        # An array without entries has no tie.
        (lambda x: x + jnp.max(jnp.ones(0) * x, initial=0.0), 1.0),
        (lambda x: lax.fori_loop(0, 2, lambda i, a: jnp.sin(a), x), 1.0),
    ],
)
def test_text_says_nothing_where_there_is_a_derivative(f, x):
    assert not explain(f, x).text().splitlines()[1]


def test_custom_rule_may_index_a_constant_by_a_traced_number():
    times = jnp.array([0.5, 2.0])
    f = jax.custom_vjp(lambda x, times: jnp.sum(x) * times[0])
    last = lambda times, ct: jax.lax.fori_loop(0, 2, lambda i, _: ct * times[i], ct)
    f.defvjp(
        lambda x, times: (f(x, times), times),
        lambda times, ct: (jnp.full(3, last(times, ct)), jnp.zeros(2)),
    )
    x = jnp.ones(3)
    ledger = explain(lambda x: f(x, jnp.array([0.5, 2.0])), x)
    np.testing.assert_array_equal(ledger.gradient("x"), jax.grad(f)(x, times))
