"""checkpoint_scan: the bits of lax.scan, derivatives of every kind, and memory
within the promise.
"""

import re
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.derivatives import checkpoint_scan
from research.derivatives._checkpoint_scan import _part

COMPILE_QUICKLY = True  # tests/conftest.py

W = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)) / 2)


def rows(length, width=4):
    return jnp.asarray(np.random.default_rng(1).normal(size=(length, width)))


def recurrent(scan, w, start, xs, **options):
    step = lambda carry, x: (jnp.tanh(w @ carry + x), {"norm": jnp.sum(carry**2)})
    last, ys = scan(step, start, xs, **options)
    return jnp.sum(last * jnp.arange(4.0)) + jnp.sum(ys["norm"]), (last, ys)


@pytest.mark.on_ci("five steps, and a length without factors", but=r"^(0|60)\]")
@pytest.mark.thorough("the other lengths", but=r"^(0|5|29|60)\]")
@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 7, 16, 29, 60])
def test_scan_has_the_bits_of_lax_scan(length):
    # 0 to 5 are not divided; 7 and 29 have no factors; 60 has parts of several lengths.
    xs, start = rows(length), jnp.ones(4)
    plain = jax.jit(lambda w: recurrent(jax.lax.scan, w, start, xs)[1])(W)
    for levels in (1, 2, 3):
        ours = jax.jit(
            lambda w, n=levels: recurrent(checkpoint_scan, w, start, xs, levels=n)[1]
        )(W)
        jax.tree.map(np.testing.assert_array_equal, ours, plain)


@pytest.mark.thorough("the other numbers of levels", but="2")
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_derivatives_are_those_of_lax_scan(levels):
    xs, start = rows(29), jnp.ones(4)
    ours = lambda w, xs: recurrent(checkpoint_scan, w, start, xs, levels=levels)[0]
    plain = lambda w, xs: recurrent(jax.lax.scan, w, start, xs)[0]
    along = (jnp.cos(W), jnp.sin(xs))

    def all_of(f):
        slope = lambda w, xs: jax.jvp(f, (w, xs), along)[1]
        product = lambda w, xs: jax.tree.reduce(
            jnp.add,
            jax.tree.map(jnp.vdot, jax.grad(f, (0, 1))(w, xs), along),
        )
        return jax.jit(
            lambda w, xs: (
                jax.grad(f, (0, 1))(w, xs),
                slope(w, xs),
                jax.grad(product, (0, 1))(w, xs),  # Reverse over reverse.
            )
        )(W, xs)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12),
        all_of(ours),
        all_of(plain),
    )


def temporary(f, x):
    analysis: Any = jax.jit(jax.grad(f)).lower(x).compile().memory_analysis()
    return analysis.temp_size_in_bytes


def wide(scan, length, **options):
    """Loss of a wide carry: memory is mostly carries."""
    step = lambda c, _: (jnp.sin(c) * 1.1 + 0.1 * c**2 / (1 + c**2), None)
    return lambda c: jnp.sum(scan(step, c, None, length=length, **options)[0] ** 2)


def test_memory_is_the_root_of_the_length():
    start = jnp.ones(1000)
    carry, plain = start.nbytes, temporary(wide(jax.lax.scan, 512), start)
    for levels in (1, 2, 3):
        used = temporary(wide(checkpoint_scan, 512, levels=levels), start)
        assert used <= (levels * 512 ** (1 / levels) + 8) * carry
    assert plain > 512 * carry


@pytest.mark.on_ci("three promises; test_promise_holds_inside_a_trace has one")
@pytest.mark.thorough("a length without factors", but="256")
@pytest.mark.parametrize("length", [256, 257])
def test_memory_is_at_most_the_promise(length):
    start = jnp.ones(1000)
    found = []
    for promise in (10**8, 8000 * 60, 8000 * 30):
        f = wide(checkpoint_scan, length, memory_bytes=promise)
        found.append(temporary(f, start))
        assert found[-1] <= promise
    assert found[0] > 8000 * 60  # A large promise takes few levels.


def test_promise_holds_inside_a_trace():
    promise = 8000 * 45

    def f(scale):
        step = lambda c, x: (jnp.sin(c * scale + x), None)
        scanned = checkpoint_scan(
            step, jnp.ones(1000), jnp.arange(256.0), memory_bytes=promise
        )
        return jnp.sum(scanned[0])

    assert temporary(f, jnp.ones(1000)) <= promise


@pytest.mark.parametrize("levels", [2, 3])
def test_the_length_of_a_part_is_the_best_of_all_lengths(levels):
    def expected(count):
        carries = lambda size: (
            count // size
            + (levels - 1) * size ** (1 / (levels - 1))
            + count % size / size
        )
        sizes = [size for size in range(2, count // 2 + 1) if count % size != 1]
        best = min(sizes, key=carries, default=None)
        divisors = [size for size in sizes if count % size == 0]
        divisor = min(divisors, key=carries, default=None)
        if divisor and carries(divisor) <= 1.3 * carries(best):
            return divisor
        return best

    for count in (*range(400), 2521, 9973, 10_007, 2**14):
        assert _part(count, levels) == expected(count)


@pytest.mark.parametrize("levels", [2, 3])
def test_a_long_scan_is_divided_in_a_moment(levels):
    start = time.process_time()
    for count in (10**9, 10**9 + 7):
        assert _part(count, levels) is not None
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("levels", [2, 3])
def test_parts_cover_the_length_and_no_loop_has_one_step(levels):
    for count in range(200):
        size = _part(count, levels)
        if size is not None:
            assert size >= 2
            assert count // size >= 2
            assert count % size != 1


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"levels": 0}, ValueError, "levels must be an integer in 1..3; got levels=0"),
        ({"levels": 4}, ValueError, "levels=4"),
        ({"levels": 1.5}, ValueError, "levels=1.5"),
        ({"memory_bytes": 0}, ValueError, "memory_bytes"),
        ({"memory_bytes": 10}, ValueError, "memory_bytes=10 is too little"),
        ({"length": 3}, ValueError, "xs must hold arrays with the same first axis"),
        ({"xs": None}, ValueError, "length=None"),
        ({"xs": (jnp.ones(2), jnp.ones(3))}, ValueError, "shapes [(2,), (3,)]"),
        ({"xs": 1.0}, ValueError, "first axis"),
        ({"f": 3}, TypeError, "f must be a function of (carry, x)"),
        ({"f": lambda carry: carry}, TypeError, "f must be a function of (carry, x)"),
    ],
)
def test_bad_input_is_named(options, error, words):
    call = {"f": lambda carry, x: (carry + x, x), "init": 0.0, "xs": jnp.ones(4)}
    with pytest.raises(error, match=re.escape(words)):
        checkpoint_scan(**(call | options))


def test_a_promise_of_memory_takes_a_number_as_the_carry():
    step = lambda c, x: (2 * c + x, None)
    found = checkpoint_scan(step, 0, jnp.ones(8), memory_bytes=10**9)[0]
    assert found == jax.lax.scan(step, 0, jnp.ones(8))[0] == 255
