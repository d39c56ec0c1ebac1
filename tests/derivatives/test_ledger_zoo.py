"""Laws of the ledger over a zoo of functions: bits of jax.grad, as many rows as
equations, paths that add up.
"""

import contextlib
import functools

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

from research.derivatives import explain

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

F32, BF16 = jnp.float32, jnp.bfloat16


def normal(*shape, seed=0, dtype=float):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def mlp(params, x):
    hidden = jnp.tanh(x @ params["first"]["w"] + params["first"]["b"][None])
    return jnp.mean((hidden @ params["last"] - 1.0) ** 2)


def softmax_cross_entropy(w, x, y):
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(x @ w) * y, axis=1))


def rnn(w, u, xs):
    def step(h, x):
        h = jnp.tanh(w @ h + u * x)
        return h, h

    return jnp.sum(jax.lax.scan(step, jnp.zeros(3), xs)[1] ** 2)


def backwards_scan(w, xs):
    carry, ys = jax.lax.scan(
        lambda c, x: (jnp.sin(c * x["a"]) + w, c * w), w, xs, reverse=True
    )
    return carry + jnp.sum(ys)


def attention(q, k, v):
    weights = jax.nn.softmax(q @ k.T / jnp.sqrt(4.0), axis=-1)
    return jnp.sum((weights @ v) ** 2)


def layer_norm(x):
    return jnp.sum(((x - jnp.mean(x)) / jnp.sqrt(jnp.var(x) + 1e-5)) ** 3)


def positive(a):
    return a @ a.T + 4 * jnp.eye(4)


@jax.custom_jvp
def product(x, y):
    return jnp.sin(x) * y


@product.defjvp
def _(point, change):
    (x, y), (dx, dy) = point, change
    return product(x, y), jnp.cos(x) * y * dx + jnp.sin(x) * dy


@jax.custom_vjp
def twice_wrong(x, y):
    return jnp.sin(x) * y


twice_wrong.defvjp(
    lambda x, y: (jnp.sin(x) * y, (x, y)),
    lambda kept, d: (2 * d * jnp.cos(kept[0]) * kept[1], d * jnp.sin(kept[0])),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def powered(x, n):
    return x**n


powered.defvjp(lambda x, n: (x**n, x), lambda n, x, d: (d * n * x ** (n - 1),))


@jax.custom_vjp
def taken(x, i):
    return x[i], x[i] ** 2


taken.defvjp(
    lambda x, i: (taken(x, i), (x, i)),
    lambda kept, d: (
        jnp.zeros_like(kept[0]).at[kept[1]].add(d[0] + 2 * d[1] * kept[0][kept[1]]),
        None,
    ),
)


@jax.custom_jvp
def outer(x):
    return product(x, twice_wrong(x, x))


outer.defjvps(lambda dx, value, x: dx * product(x, 2.0) * 3)


@jax.custom_vjp
def clipped_adjoint(x):
    return x


clipped_adjoint.defvjp(lambda x: (x, None), lambda _, d: (jnp.clip(d, -1.0, 1.0),))


def dropout(x, key):
    kept = jax.random.bernoulli(key, 0.5, x.shape)
    return jnp.sum(jnp.where(kept, x / 0.5, 0.0) ** 2)


def conv(x, w):
    return jnp.sum(jax.lax.conv(x, w, (1, 1), "SAME") ** 2)


def summed(f):
    return lambda *args: jnp.sum(f(*args))


class Machine:
    def __init__(self):
        self.w = normal(3)

    def loss(self, x):
        return jnp.sum(jnp.tanh(self.w * x))

    def __call__(self, x):
        return self.loss(x) ** 2


A, X5 = normal(4, 4), normal(5)
PARAMS = {"first": {"w": normal(3, 4), "b": normal(4)}, "last": normal(4, 1)}
# name -> (function, its arguments; a function of nothing where they hold a key, which
# is used once).
ZOO = {
    "polynomial": (lambda x: (3 * x**2 + 2) ** 3, (0.7,)),
    "repeated inputs": (
        lambda x, y: x**x + x * y / x - (x - x) + jnp.arctan2(x * y, x) ** x,
        (0.7, 1.3),
    ),
    "neuron": (
        lambda w, b: (jax.nn.sigmoid(w @ jnp.array([1.0, 2.0]) + b) - 1) ** 2,
        (normal(2), 0.3),
    ),
    "multilayer perceptron": (mlp, (PARAMS, normal(6, 3))),
    "softmax cross-entropy": (
        softmax_cross_entropy,
        (normal(3, 4), normal(6, 3), jnp.eye(4)[jnp.array([0, 1, 2, 3, 0, 1])]),
    ),
    "cross-entropy of labels": (
        lambda z, y: -jnp.mean(jax.nn.log_softmax(z)[jnp.arange(3), y]),
        (normal(3, 4), jnp.array([0, 2, 1])),
    ),
    "attention": (
        attention,
        (normal(3, 4), normal(5, 4, seed=1), normal(5, 2, seed=2)),
    ),
    "layer norm": (layer_norm, (X5,)),
    "relu": (summed(lambda x: jax.nn.relu(x) ** 2), (X5,)),
    "gelu": (summed(jax.nn.gelu), (X5,)),
    "gelu, exact": (summed(lambda x: jax.nn.gelu(x, approximate=False)), (X5,)),
    "silu": (summed(jax.nn.silu), (X5,)),
    "softplus": (summed(jax.nn.softplus), (X5,)),
    "logsumexp": (jax.nn.logsumexp, (X5,)),
    "recurrent network": (rnn, (normal(3, 3), normal(3), normal(4))),
    "scan backwards": (backwards_scan, (0.3, {"a": normal(4)})),
    "cond": (lambda x: jax.lax.cond(x > 0, jnp.sin, jnp.cos, x) * x, (0.3,)),
    "switch": (lambda x: jax.lax.switch(1, [jnp.sin, jnp.exp, jnp.cos], x), (0.3,)),
    "fori, static": (
        lambda x: jax.lax.fori_loop(0, 4, lambda i, c: c * x + i, 1.0),
        (0.4,),
    ),
    "while beside": (
        lambda x: x * jax.lax.while_loop(lambda c: c < 9, lambda c: c * 2, 1.0),
        (0.4,),
    ),
    "solve": (summed(lambda a, b: jnp.linalg.solve(positive(a), b)), (A, normal(4))),
    "cholesky": (
        lambda a: 2 * jnp.sum(jnp.log(jnp.diag(jnp.linalg.cholesky(positive(a))))),
        (A,),
    ),
    "eigvalsh": (summed(lambda a: jnp.linalg.eigvalsh(positive(a)) ** 3), (A,)),
    "svd": (summed(lambda a: jnp.linalg.svd(a, compute_uv=False) ** 3), (A,)),
    "qr": (summed(lambda a: jnp.linalg.qr(a)[1] ** 2 * jnp.arange(4.0)[:, None]), (A,)),
    "fft": (summed(lambda x: jnp.abs(jnp.fft.fft(x)) ** 2 * jnp.arange(5.0)), (X5,)),
    "complex inside": (
        lambda x, y: jnp.real(jnp.exp(1j * x * y) * (x + 1j * y) ** 2),
        (0.3, 0.8),
    ),
    "sort": (summed(lambda x: jnp.sort(x) * jnp.arange(5.0)), (X5,)),
    "gather": (summed(lambda x: x[jnp.array([0, 2, 2])] ** 2), (X5,)),
    "scatter": (
        summed(lambda x: jnp.zeros(6).at[jnp.array([1, 3, 3, 0, 5])].add(x) ** 2),
        (X5,),
    ),
    "scatter, set": (summed(lambda x: (x**2).at[1].set(x[0] ** 3)), (X5,)),
    "dynamic slice": (
        summed(lambda x, i: jax.lax.dynamic_slice(x, (i,), (2,)) ** 2),
        (X5, 2),
    ),
    "convolution": (conv, (normal(1, 2, 5, 5), normal(3, 2, 3, 3, seed=1))),
    "pooling": (
        summed(
            lambda x: (
                jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2,), (2,), "VALID")
                ** 2
            )
        ),
        (normal(6),),
    ),
    "concatenate, pad, stack": (
        summed(
            lambda x: jnp.concatenate([jnp.pad(x, 1) ** 2, jnp.stack([x, x**3])[1]])
        ),
        (X5,),
    ),
    "einsum": (
        summed(lambda a, b: jnp.einsum("ij,jk,ik->i", a, b, a) ** 2),
        (A, normal(4, 4, seed=1)),
    ),
    "jit in jit": (jax.jit(lambda x: jax.jit(lambda y: y * y * x)(x) + x), (0.4,)),
    "remat": (jax.checkpoint(lambda x: jnp.sin(jnp.sin(x))), (0.4,)),
    "custom jvp": (lambda x: product(x, x**2) ** 2, (0.4,)),
    "custom vjp": (lambda x: twice_wrong(x, x**2) ** 2, (0.4,)),
    "custom vjp, static argument": (lambda x: powered(x, 3) * x, (0.4,)),
    "custom vjp, integer argument": (lambda x, i: sum(taken(x * x, i)), (X5, 3)),
    "custom rules, nested": (lambda x: outer(x) * x, (0.4,)),
    "custom vjp of the identity": (lambda x: 3 * clipped_adjoint(x) ** 2, (0.4,)),
    "custom vjp, vmapped": (summed(lambda x: jax.vmap(twice_wrong)(x, x**2)), (X5,)),
    "stop gradient": (lambda x: jax.lax.stop_gradient(x) * x, (0.4,)),
    "straight through": (
        summed(lambda x: x + jax.lax.stop_gradient(jnp.round(x) - x)),
        (X5,),
    ),
    "grad inside": (lambda x: jax.grad(lambda y: y**3 * jnp.sin(y))(x) ** 2, (0.4,)),
    "hessian-vector product inside": (
        lambda x: jax.jvp(jax.grad(layer_norm), (x,), (x,))[1] @ x,
        (X5,),
    ),
    "vmap inside": (
        lambda x, y: jnp.sum(jax.vmap(lambda a: jnp.dot(a, y) ** 2)(x)),
        (normal(6, 3), normal(3)),
    ),
    "vmapped cond": (
        summed(
            jax.vmap(
                lambda x: jax.lax.cond(x > 0, lambda y: jnp.sin(y), lambda y: y**3, x)
            )
        ),
        (X5,),
    ),
    "dropout": (dropout, lambda: (X5, jax.random.key(0))),
    "float32": (
        lambda w, x: jnp.sum(jnp.tanh(x @ w) ** 2),
        (normal(3, 4, dtype=F32), normal(6, 3, dtype=F32)),
    ),
    "bfloat16": (
        lambda w, x: jnp.sum(jnp.tanh(x @ w) ** 2),
        (normal(3, 4, dtype=BF16), normal(6, 3, dtype=BF16)),
    ),
    "mixed precision": (
        lambda w, x: jnp.sum(x @ w.astype(F32)) ** 2,
        (normal(3, dtype=BF16), normal(6, 3, dtype=F32)),
    ),
    "integers beside": (
        lambda p: jnp.sum(p["w"] * p["n"]) * p["m"][0],
        ({"w": X5, "n": 3, "m": jnp.array([2, 3])},),
    ),
    "clip, round, argmax": (
        lambda x: jnp.sum(jnp.clip(x, -0.5, 0.5)) + jnp.round(x[0]) + x[jnp.argmax(x)],
        (X5,),
    ),
    "max, min, abs": (
        lambda x: jnp.max(x) - jnp.min(jnp.abs(x)) + jnp.sum(jnp.maximum(x, 0.1)),
        (X5,),
    ),
    "cumulative": (
        lambda x: jnp.sum(jnp.cumsum(x) ** 2) + jnp.sum(jnp.cumprod(x)),
        (X5,),
    ),
    "prod": (jnp.prod, (X5,)),
    "norm": (jnp.linalg.norm, (X5,)),
    "where": (summed(lambda x: jnp.where(x > 0, jnp.sqrt(jnp.abs(x)), x**3)), (X5,)),
    "special functions": (
        lambda x: (
            jax.scipy.special.gammaln(x)
            + jax.scipy.special.erf(x)
            + jax.scipy.special.i0e(x)
        ),
        (1.7,),
    ),
    "interpolation": (lambda x, y: jnp.interp(x, jnp.arange(5.0), y), (1.3, X5)),
    "constant": (lambda x: jnp.float32(2.0), (0.4,)),
    "identity": (lambda x: x, (0.4,)),
    "bound method": (Machine().loss, (normal(3),)),
    "instance": (Machine(), (normal(3),)),
    "partial": (
        functools.partial(softmax_cross_entropy, y=jnp.eye(6, 4)),
        (normal(3, 4), normal(6, 3)),
    ),
    "vector-Jacobian product inside": (
        lambda x: jnp.sum(jax.vjp(jnp.tanh, x)[1](x)[0] ** 2),
        (X5,),
    ),
}


def arguments(name):
    given = ZOO[name][1]
    return given() if callable(given) else given


@functools.cache
def ledger(name):
    return explain(ZOO[name][0], *arguments(name), level="primitives")


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def true_gradients(name):
    """jax.grad's, of inexact leaves; whole numbers are traced as well, keys are not."""
    given, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, arguments(name)))
    places = [
        i
        for i, leaf in enumerate(given)
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    ]

    def f(*traced):
        merged = list(given)
        for place, leaf in zip(places, traced, strict=True):
            merged[place] = leaf
        return ZOO[name][0](*jax.tree.unflatten(structure, merged))

    numbers = [given[i] for i in places]
    value, grads = jax.value_and_grad(
        f, argnums=tuple(range(len(places))), allow_int=True
    )(*numbers)
    return value, [
        g
        for g, x in zip(grads, numbers, strict=True)
        if jnp.issubdtype(x.dtype, jnp.inexact)
    ]


SCANS = ("recurrent network", "scan backwards", "fori, static")


# What compiles for half a second or more: make test has none of its laws.
SLOW = (
    *("attention", "bfloat16", "mixed precision", "cumulative", "cholesky", "eigvalsh"),
    *("qr", "svd", "gelu, exact", "convolution", "fft", "special functions"),
    *("interpolation", "cross-entropy of labels", "concatenate, pad, stack"),
    "hessian-vector product inside",
)
REPEATS = (
    *SLOW,
    *("layer norm", "neuron", "gelu", "silu", "softplus", "logsumexp"),
    *("scan backwards", "switch", "gather", "scatter, set", "einsum"),
    *("custom vjp, static argument", "custom vjp, integer argument"),
    *("custom vjp of the identity", "straight through", "grad inside"),
    *("vmap inside", "max, min, abs", "multilayer perceptron"),
    *("softmax cross-entropy", "solve", "norm", "prod", "instance", "where"),
)
# A ledger is made once for all tests. make test leaves these out of all of them.
MORE = (
    *("repeated inputs", "recurrent network", "complex inside", "dynamic slice"),
    *("scatter", "pooling", "vmapped cond", "dropout", "custom rules, nested"),
    *("custom vjp, vmapped", "clip, round, argmax", "partial"),
    "vector-Jacobian product inside",
)
NOT_ALONE = pytest.mark.thorough("functions of which another shows the kind")
ON_CI = pytest.mark.on_ci("most functions; make test has sixteen small ones")
IN_BITS = [
    pytest.param(
        key, marks=NOT_ALONE if key in REPEATS else ON_CI if key in MORE else ()
    )
    for key in ZOO
]
NAMES = [
    pytest.param(
        key,
        marks=NOT_ALONE if key in SLOW else ON_CI if key in (*REPEATS, *MORE) else (),
    )
    for key in ZOO
]


@pytest.mark.parametrize("name", IN_BITS)
def test_value_and_gradient_have_the_bits_of_jax_grad(name):
    # Operation by operation: what jax.numpy jits inside, XLA fuses, and then it rounds
    # elsewhere. But a scan stays one.
    with contextlib.nullcontext() if name in SCANS else jax.disable_jit():
        value, expected = true_gradients(name)
    found = leaves(ledger(name).grads)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(ledger(name).value, value)
    assert ledger(name).note == ""


@pytest.mark.thorough("the largest programs", but="softmax|jit")
@pytest.mark.parametrize(
    "name",
    [
        "softmax cross-entropy",
        "layer norm",
        "jit in jit",
        "hessian-vector product inside",
    ],
)
def test_gradient_is_that_of_fused_programs_to_rounding(name):
    for ours, theirs in zip(
        leaves(ledger(name).grads), true_gradients(name)[1], strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13, atol=1e-13)


WRAPPED = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "closed_call": "call_jaxpr",
}
WRAPPED |= {
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
BRANCH = 1  # That both functions with a cond take.


def flattened(jaxpr):
    """Names of all equations, those inside wrappers in their place."""
    names = []
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name = equation.primitive.name
        if name in WRAPPED:
            names += flattened(equation.params[WRAPPED[name]])
        elif name == "cond":
            names += flattened(equation.params["branches"][BRANCH])
        else:
            names.append(name)
    return names


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_the_flattened_equations_and_none_is_a_wrapper(name):
    args = jax.tree.map(jnp.asarray, arguments(name))
    rows = ledger(name).rows
    assert [row.primitive for row in rows if not row.is_rule] == flattened(
        jax.make_jaxpr(ZOO[name][0])(*args)
    )
    assert not {row.primitive for row in rows} & {*WRAPPED, "cond", "custom_lin"}


@pytest.mark.parametrize("name", NAMES)
def test_lines_are_the_users(name):
    # What JAX wrote and nobody calls from a line has none: a function explained by
    # itself, a rule of vmap.
    direct = name in ("logsumexp", "prod", "norm", "vmapped cond")
    files = {row.source.partition(":")[0] for row in ledger(name).rows}
    assert files <= {"test_ledger_zoo.py", *([""] if direct else [])}


PATHS = [
    name for name in NAMES if "hessian-vector product inside" not in name.values
]  # Which has thousands.


@pytest.mark.parametrize("name", PATHS)
def test_paths_add_up_to_the_gradient(name):
    found = iter(leaves(ledger(name).grads))
    for key, value in ledger(name).inputs.items():
        if jnp.issubdtype(value.dtype, jnp.inexact):
            total = sum(
                (
                    np.asarray(path.derivative, float)
                    for path in ledger(name).paths(key)
                ),
                np.zeros(value.shape),
            )
            tolerance = (
                0.05 if value.dtype == BF16 else 1e-5 if value.dtype == F32 else 1e-11
            )
            np.testing.assert_allclose(
                total, np.asarray(next(found), float), rtol=tolerance, atol=tolerance
            )
