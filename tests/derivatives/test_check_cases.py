"""A fixed part of the random cases of check_cases.py: no correct derivative is rejected, no planted error is called right.

`python -m tests.derivatives.check_cases --cases 2000 --seed 1` runs as many as one likes.
"""

import numpy as np
import pytest
from scipy import stats

from tests.derivatives import check_cases

SIX_TIMES_AS_MANY = pytest.mark.thorough("six times as many cases")


@pytest.fixture(scope="module", params=[6, pytest.param(36, marks=SIX_TIMES_AS_MANY)])
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
