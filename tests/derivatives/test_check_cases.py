"""A fixed part of the random cases of check_cases.py: no correct derivative is
rejected, no planted error is called right.

`python -m tests.derivatives.check_cases --cases 2000 --seed 1` runs as many as one
likes.
"""

import jax
import numpy as np
import pytest
from scipy import stats

from research.derivatives import check_derivative
from tests.derivatives import check_cases

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

MORE = pytest.mark.thorough(
    "many times as many cases, with the same kinds of errors",
    caught_by="test_no_planted_error_is_called_right_beyond_the_smallest_error_that_is_stated",
)


AGAIN = pytest.mark.on_ci(
    "twice as many cases, with the same kinds of errors",
    caught_by="test_no_planted_error_is_called_right_beyond_the_smallest_error_that_is_stated",
)


@pytest.fixture(
    scope="module",
    params=[1, pytest.param(2, marks=AGAIN), pytest.param(36, marks=MORE)],
)
def tally(request):
    return check_cases.run(request.param, seed=0)


def test_no_correct_derivative_is_rejected(tally):
    assert not tally.rejected, tally.text()


def test_no_planted_error_is_called_right_beyond_the_smallest_error_that_is_stated(
    tally,
):
    assert not tally.missed, tally.text()
    assert sum(
        number for (_, verdict), number in tally.planted.items() if verdict == "wrong"
    ) > 2.5 * len(tally.smallest["float64"] + tally.smallest["float32"])


@pytest.mark.thorough("medians, which need many cases")
@pytest.mark.parametrize("tally", [36], indirect=True)
def test_smallest_error_is_small_and_few_cases_are_unresolved(tally):
    for mode, most in (("float64", 1e-6), ("float32", 1e-2)):
        assert np.median(tally.smallest[mode]) < most
    for zone, share in (
        ("away", 0.05),
        ("within 1e-3", 0.2),
    ):  # Of thousands; here what chance exceeds once in 1,000.
        cases = [
            unresolved
            for mode in ("float64", "float32")
            for unresolved in tally.unresolved[zone, mode]
        ]
        assert np.sum(cases) <= stats.binom.ppf(0.999, len(cases), share)


@pytest.fixture(
    scope="module",
    params=[1, pytest.param(40, marks=MORE)],
)
def kinked(request):
    """Reports of functions with kinks: of jax's derivative, and with an error beside
    them.
    """
    reports = []
    for i, (f, x, at) in enumerate(check_cases.kinked_cases(request.param, seed=0)):
        gradient, smooth = np.asarray(jax.grad(f)(x)), np.flatnonzero(~at)
        entry = smooth[i % len(smooth)]
        wrong = gradient + 1e-2 * np.linalg.norm(gradient) * np.eye(len(x))[entry]
        checked = [
            check_derivative(f, x, jax.random.key(i), derivative)
            for derivative in (None, lambda _, wrong=wrong: wrong)
        ]
        reports.append((entry, *checked))
    return reports


@pytest.mark.on_ci(
    "a random function; test_kink_is_told_from_a_bug (test_check.py) has a plain one"
)
def test_kinks_in_some_entries_are_kinks(kinked):
    assert [right.verdict for _, right, _ in kinked] == ["kink"] * len(kinked)


@pytest.mark.on_ci(
    "shares a fixture with the test above; nothing shorter has this error"
)
def test_a_kink_in_one_entry_excuses_no_error_in_another_entry_of_the_same_leaf(kinked):
    for entry, _, wrong in kinked:
        assert wrong.verdict == "wrong"
        assert f"(entry {entry})" in wrong.explanation
