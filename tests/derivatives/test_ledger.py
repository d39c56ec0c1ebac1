"""Laws of explain: rows that can be checked by hand, adjoints that are derivatives,
lines that are the user's, errors.
"""

import functools
import inspect
import math
import pathlib
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.derivatives import NotInexactError, NotScalarError, explain
from research.derivatives import ledger as ledgers

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py


def neuron(w, b, x, y):
    return (jax.nn.sigmoid(w * x + b) - y) ** 2


def line_of(function, text):
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


def test_neuron_is_five_rows_that_agree_with_the_hand():
    # z = 0.5 · 2 - 0.3, a = σ(z), loss (a - 1)²; backwards 2 (a - 1), then · a (1 - a),
    # then · x and · w.
    ledger = explain(neuron, 0.5, -0.3, 2.0, 1.0)
    a = 1 / (1 + math.exp(-0.7))
    da, dz = 2 * (a - 1), 2 * (a - 1) * a * (1 - a)
    by_hand = [
        ("v1", "w · x", 1.0, (2.0, 0.5), dz),
        ("v2", "v1 + b", 0.7, (1.0, 1.0), dz),
        ("v3", "σ(v2)", a, (a * (1 - a),), da),
        ("v4", "v3 - y", a - 1, (1.0, -1.0), da),
        ("v5", "v4²", (a - 1) ** 2, (2 * (a - 1),), 1.0),
    ]
    assert [(row.name, row.expression) for row in ledger.rows] == [
        line[:2] for line in by_hand
    ]
    for row, (_, _, value, local, adjoint) in zip(ledger.rows, by_hand, strict=True):
        np.testing.assert_allclose(row.value, value, rtol=1e-14)
        np.testing.assert_allclose(row.local, local, rtol=1e-14)
        np.testing.assert_allclose(row.adjoint, adjoint, rtol=1e-14)
        np.testing.assert_allclose(
            row.contributions, np.multiply(local, adjoint), rtol=1e-14
        )
    np.testing.assert_allclose(ledger.grads, [2 * dz, dz, 0.5 * dz, -da], rtol=1e-14)
    np.testing.assert_allclose(dz, -0.1471, atol=5e-5)  # As a pocket calculator has it.


def test_mathematics_hides_only_what_changes_shape_or_type():
    def f(x):
        return jnp.sum(jnp.reshape(x, (2, 2)).T.astype(jnp.float64) ** 2)

    short, long = (
        explain(f, jnp.arange(4.0, dtype=jnp.float32), level=level)
        for level in ("mathematics", "primitives")
    )
    hidden = {row.primitive for row in long.rows} - {
        row.primitive for row in short.rows
    }
    assert [row.primitive for row in short.rows] == [
        *("transpose", "integer_pow", "reduce_sum")
    ]
    assert hidden == {"reshape", "convert_element_type"}
    assert short.rows[0].inputs == ("x",)


SQUARE = jnp.array([[1.0, 2.0], [3.0, 4.0]])
STACK = jnp.arange(12.0).reshape(2, 2, 3)
EQUATIONS = {
    "transpose": (lambda a, x: jnp.sum(a.T @ x), (SQUARE, jnp.array([5.0, 6.0]))),
    "axes": (lambda a: jnp.sum(a.transpose(1, 0, 2)[0] ** 2), (STACK,)),
    "int": (lambda x: x * x.astype(int), (3.7,)),
    "float32": (lambda x: jnp.float64(x.astype("float32")) * x, (0.1,)),
    "precision": (lambda x: x * jax.lax.reduce_precision(x, 5, 2), (3.7,)),
    "copies": (lambda x: jnp.sum(jnp.broadcast_to(x, (3,))), (3.7,)),
    "ones": (lambda a: jnp.sum(a @ jnp.ones(2)), (SQUARE,)),
    "barrier": (
        lambda x, y: jnp.multiply(*jax.lax.optimization_barrier((x, y))),
        (2.0, 3.0),
    ),
    **{
        formula: (lambda a, b, f=formula: jnp.sum(jnp.einsum(f, a, b)), (SQUARE, last))
        for formula, last in {
            **dict.fromkeys(["ij,jk->ik", "ij,ik->jk", "ij,kj->ik"], SQUARE),
            **{"ij,ij->": SQUARE, "ij,j->i": SQUARE[0], "ij,i->j": SQUARE[0]},
        }.items()
    },
    "stack": (lambda a, b: jnp.sum(a @ b), (STACK, jnp.ones((2, 3, 4)))),
    "many": (lambda a, b: jnp.sum(a @ b), (STACK, jnp.arange(6.0).reshape(3, 2))),
}
NUMPY = {
    "sum": np.sum,
    "transpose": np.transpose,
    "float32": np.float32,
    "int64": np.int64,
    "slice": lambda a: a[:1],
    "reduce_precision": lambda x: jax.lax.reduce_precision(x, 5, 2),
    "broadcast_in_dim": lambda x: np.full(3, x),
    "dot_general": lambda a, b: np.sum(a * b),
}


@pytest.mark.on_ci(
    "eleven more equations", but=r"^(transpose|int|copies|ij,jk->ik|many)\]"
)
@pytest.mark.parametrize("name", EQUATIONS)
def test_every_printed_equation_is_true(name):
    # The text of the equation, evaluated by NumPy.
    f, args = EQUATIONS[name]
    ledger = explain(f, *args)
    known = {name: np.asarray(value) for name, value in ledger.inputs.items()}
    for row in ledger.rows:
        text = row.expression.replace("·", "*").replace("ᵀ", ".T").replace("²", "**2")
        found = eval(text, NUMPY | known)
        np.testing.assert_allclose(np.ravel(found), np.ravel(row.value), rtol=1e-12)
        known[row.name] = np.asarray(row.value)


def head(x, y):
    return x * jnp.sin(y)


def tail(v):
    return jnp.exp(v) / (1 + v**2)


@pytest.mark.thorough("a decomposition and a product of matrices", but="args[0-2]")
@pytest.mark.on_ci("a square", but=r"args[12]")
@pytest.mark.parametrize(
    ("first", "rest", "args"),
    [
        (lambda x: x * x, tail, (0.7,)),
        (head, tail, (0.7, 1.1)),
        (
            lambda x: jnp.cumsum(x),
            lambda v: jnp.sum(tail(v) * v),
            (jnp.array([0.3, -0.2, 0.9]),),
        ),
        (
            lambda w, x: w @ x,
            lambda v: jax.nn.logsumexp(v) - v[1],
            (jnp.eye(3), jnp.array([0.3, -0.2, 0.9])),
        ),
        (
            jnp.linalg.cholesky,
            lambda v: jnp.sum(jnp.log(jnp.diag(v)) * v[:, 0]),
            (jnp.array([[2.0, 0.5], [0.5, 1.0]]),),
        ),
    ],
)
def test_adjoint_is_the_derivative_of_the_rest_by_the_value(first, rest, args):
    ledger = explain(lambda *given: rest(first(*given)), *args)
    value = first(*args)
    row = next(row for row in ledger.rows if np.array_equal(row.value, value))
    np.testing.assert_allclose(row.adjoint, jax.grad(rest)(value), rtol=1e-13)


def test_every_adjoint_of_a_program_is_the_derivative_of_the_rest():
    # The program again from each of its values on, written out by hand.
    w, b, x = jnp.array([0.2, -0.4]), 0.3, jnp.array([1.0, 2.0])
    rows = explain(lambda w, b: jnp.log(1 + jnp.exp(-(w @ x + b))), w, b).rows
    rests = [
        lambda v: jnp.log(1 + jnp.exp(-(v + b))),
        lambda v: jnp.log(1 + jnp.exp(-v)),
        lambda v: jnp.log(1 + jnp.exp(v)),
        lambda v: jnp.log(1 + v),
        lambda v: jnp.log(v),
        lambda v: v,
    ]
    for row, rest in zip(rows, rests, strict=True):
        np.testing.assert_allclose(row.adjoint, jax.grad(rest)(row.value), rtol=1e-14)


def test_contributions_add_up_to_the_adjoint():
    rows = explain(lambda x: x * jnp.sin(x) + x**3 / (1 + x), 0.7).rows
    total = sum(
        share
        for row in rows
        for name, share in zip(row.inputs, row.contributions, strict=True)
        if name == "x"
    )
    np.testing.assert_allclose(
        total, jax.grad(lambda x: x * jnp.sin(x) + x**3 / (1 + x))(0.7), rtol=1e-14
    )


def recurrent(w, xs):
    def step(h, x):
        h = jnp.tanh(w * h + x)
        return h, h**2

    last, squares = jax.lax.scan(step, 0.1, xs)
    return last + jnp.sum(squares)


@pytest.mark.thorough("the other direction", but="True")
@pytest.mark.parametrize("reverse", [False, True])
def test_scan_in_steps_agrees_with_the_scan_in_one_row(reverse):
    def f(w, xs):
        last, squares = jax.lax.scan(
            lambda h, x: (jnp.tanh(w * h + x), h**2), 0.1, xs, reverse=reverse
        )
        return last + squares @ jnp.arange(4.0)

    args = (0.8, jnp.array([0.3, -0.2, 0.9, 0.1]))
    whole, steps = explain(f, *args), explain(f, *args, expand=("scan",))
    assert [row.primitive for row in whole.rows].count("scan") == 1
    assert [row.primitive for row in steps.rows].count("tanh") == 4
    assert {row.scope[-1] for row in steps.rows if row.primitive == "tanh"} == {
        f"step {i}" for i in range(4)
    }
    for one, other in zip(
        jax.tree.leaves(whole.grads), jax.tree.leaves(steps.grads), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-14, atol=1e-14)


def test_rows_of_one_step_are_named_after_it_and_paths_run_through_steps():
    ledger = explain(recurrent, 0.8, jnp.array([0.3, -0.2]), expand=("scan",))
    total = sum(path.derivative for path in ledger.paths("w"))
    np.testing.assert_allclose(
        total, jax.grad(recurrent)(0.8, jnp.array([0.3, -0.2])), rtol=1e-14
    )


def two_lines(x):
    first = jax.nn.relu(x)
    again = jax.nn.relu(x * 2)
    return jnp.where(x > 0, first, again)


def test_lines_are_the_users_also_of_functions_that_jax_traced_before():
    rows = explain(two_lines, 0.7).rows
    file = __file__.rpartition("/")[2]
    lines = {
        name: f"{file}:{line_of(two_lines, name)}"
        for name in ("first =", "again =", "return")
    }
    maxima = [row.source for row in rows if row.primitive == "max"]
    assert maxima == [lines["first ="], lines["again ="]]
    assert {row.source for row in rows} == set(lines.values())


class Machine:
    def __init__(self, w):
        self.w = w

    def loss(self, x):
        return jnp.sum(self.w * x**2)

    __call__ = loss


@pytest.mark.parametrize(
    ("f", "title"),
    [
        (jax.jit(lambda x: jnp.sum(x**2)), "f"),
        (functools.partial(lambda a, x: jnp.sum(a * x), 2.0), "f"),
        (Machine(2.0).loss, "loss"),
        (Machine(2.0), "Machine"),
        (jnp.sum, "sum"),
    ],
)
def test_any_callable_is_explained_under_its_name(f, title):
    x = jnp.array([1.0, 2.0])
    ledger = explain(f, x)
    assert ledger.title == title
    np.testing.assert_array_equal(ledger.grads, jax.grad(f)(x))


def test_gradients_have_the_structure_of_the_arguments():
    params = {"w": jnp.ones(2), "steps": 3}
    ledger = explain(lambda p, x: jnp.sum(p["w"] * x) * p["steps"], params, 2.0)
    grads, by_x = ledger.grads
    np.testing.assert_array_equal(grads["w"], [6.0, 6.0])
    assert grads["steps"] is None
    assert by_x == 6.0
    assert list(ledger.inputs) == ["p['steps']", "p['w']", "x"]


def loop(x):
    return jax.lax.while_loop(lambda c: c < 10, lambda c: c * 2 * x, x)


def test_while_keeps_its_forward_rows_and_says_so():
    ledger = explain(loop, 1.5)
    assert ledger.grads is None
    assert ledger.value == loop(1.5)
    assert [row.primitive for row in ledger.rows] == ["while"]
    assert ledger.rows[0].adjoint is None
    where = f"test_ledger.py:{line_of(loop, 'while_loop')}"
    assert ledger.note.startswith(
        f"Only forward values: while at {where} has no reverse rule"
    )
    assert ledger.note in ledger.text()
    with pytest.raises(ValueError, match="no gradient to split"):
        ledger.paths("x")


def called_back(x):
    shape = jax.ShapeDtypeStruct((), x.dtype)
    return jax.pure_callback(lambda v: np.asarray(v) * 2, shape, x * 3) + 1


def test_primitive_without_a_reverse_rule_is_named_with_its_line():
    ledger = explain(called_back, 1.0)
    assert ledger.value == 7.0
    assert (
        f"pure_callback at test_ledger.py:{line_of(called_back, 'pure_callback(')}"
        in ledger.note
    )


@pytest.mark.parametrize(
    ("f", "shown"),
    [
        (lambda x: x * jnp.ones(3), r"float64\[3\]"),
        (lambda x: (x, x), r"float64\[\], float64\[\]"),
        (lambda x: x > 0, r"bool\[\]"),
        (lambda x: x * 1j, r"complex128\[\]"),
        (lambda x: None, "nothing"),
    ],
)
def test_result_that_is_no_real_number_is_refused_with_its_shape(f, shown):
    with pytest.raises(
        NotScalarError,
        match=(
            rf"f must return one real number; it returns {shown}\. Sum the result, or "
            r"use jacobian"
        ),
    ):
        explain(f, 1.0)


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        ((3,), r"int64\. Write 3\.0 instead of 3"),
        ((3, True), r"int64, bool\. Write 3\.0 instead of 3"),
        ((), r"no number\.$"),
    ],
)
def test_whole_numbers_are_refused(args, shown):
    with pytest.raises(NotInexactError, match=f"got {shown}"):
        explain(lambda *given: 1.0, *args)


def test_a_function_without_its_arguments_is_refused():
    with pytest.raises(TypeError, match=r"explain needs .*; got none, and f takes \(x"):
        explain(lambda x: x)


@pytest.mark.parametrize("wrong", [{"level": "all"}, {"expand": ("while",)}])
def test_unknown_level_or_expansion_is_refused_with_the_choices(wrong):
    with pytest.raises(
        ValueError,
        match=r"level must be one of .*mathematics.*primitives.* and expand \(\) or",
    ):
        explain(lambda x: x, 1.0, **wrong)


def test_unknown_input_of_paths_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="name must be an input of f: x; got 'y'"):
        explain(lambda x: x * x, 1.0).paths("y")


def test_too_many_paths_are_refused():
    def f(x):
        for _ in range(14):
            x = x * x
        return x

    with pytest.raises(
        ValueError,
        match="x has 16,384 paths to the output; at most 10,000 can be listed",
    ):
        explain(f, 1.0).paths("x")


def test_paths_are_the_chain_rule_of_the_textbook():
    ledger = explain(lambda x, y: jnp.sin(x * y) * x, 0.7, 1.2)
    found = {path.nodes: float(path.derivative) for path in ledger.paths("x")}
    expected = {
        ("x", "v1", "v2", "v3"): 0.7 * math.cos(0.84) * 1.2,
        ("x", "v3"): math.sin(0.84),
    }
    assert found == pytest.approx(expected, rel=1e-14)


def test_only_one_module_touches_what_is_inside_a_jaxpr():
    inside = re.compile(r"_src|jax\.extend|\.eqns|\.invars|\.jaxpr")
    files = pathlib.Path(ledgers.__file__).parent.glob("*.py")
    touching = {file.name for file in files if inside.search(file.read_text("utf-8"))}
    assert touching == {"_walking.py"}


@pytest.mark.thorough("a measurement")
def test_explaining_four_times_the_equations_takes_about_four_times_as_long():
    def seconds(layers):
        def f(w):
            x = jnp.ones(3)
            for _ in range(layers):
                x = jnp.tanh(w @ x) + jnp.sin(x)
            return jnp.sum(x)

        taken = []
        for _ in range(
            4
            # JAX compiles each operation once; of a processor, and the least, for
            # machines are busy.
        ):
            before = time.process_time()
            assert len(explain(f, 0.1 * jnp.eye(3)).rows) == 4 * layers + 1
            taken.append(time.process_time() - before)
        return min(taken)

    assert seconds(60) < 8 * seconds(15)  # A quadratic cost would be 16 times.
