"""What language models cost in tables: the interval against scipy's, counting before
what was trained.
"""

import numpy as np
import pytest
from scipy import stats

from experiments.reports import character_language_model as report
from research import datasets, statistics


@pytest.mark.parametrize("n", [3, 4, 10])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_interval_equals_scipys_for_one_mean(n, level):
    samples = np.random.default_rng(n).normal(1.5, 0.1, n)
    mean, low, high = statistics.mean_interval(samples, level=level)
    theirs = stats.ttest_1samp(samples, 0.0).confidence_interval(level)
    assert mean == pytest.approx(samples.mean())
    assert (low, high) == (
        pytest.approx(theirs.low, rel=1e-12),
        pytest.approx(theirs.high, rel=1e-12),
    )


def test_one_seed_has_no_interval_and_is_read_without_one():
    assert statistics.mean_interval([1.25]) == (1.25, None, None)
    assert statistics.mean_interval([1.25, 1.75]) == (
        1.5,
        None,
        None,
    )  # Student's would be 12.7 times their deviation.
    assert statistics.interval_in_words(statistics.mean_interval([1.25]), 2) == "1.25"


@pytest.mark.parametrize("samples", [[], [[1.0, 2.0]]])
def test_interval_of_no_seeds_is_refused(samples):
    with pytest.raises(
        ValueError, match="at least one number along one axis; got shape"
    ):
        statistics.mean_interval(samples)


def test_counting_stands_before_networks_and_every_row_is_as_long_as_the_heading():
    counted = [{"name": "2-gram", "loss": 2.0, "counts": 9, "seconds": 0.1}]
    network = {name: (1.5, 1.4, 1.6) for name in ("whole", "half_full", "sampled")}
    network |= {"parameters": 7, "passes": 2.0, "seconds": 3.0}
    table = report.costs_table(counted, [("LSTM", network)], "A note.")
    assert [row[0] for row in table.rows] == ["2-gram", "LSTM"]
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert [row[1:5] for row in table.rows] == [
        ("2.000", "–", "2.000", "–"),
        ("1.500", "1.400 to 1.600", "1.500", "1.500"),
    ]
    alone = report.costs_table(
        counted, [("LSTM", network | {"whole": (1.5, None, None)})], ""
    )
    assert alone.rows[1][2] == "–"


def test_orders_are_numbered_and_have_a_column_for_each_smoothing():
    table = report.orders_table({"kneser_ney": [3.0, 2.0], "witten_bell": [3.1, 2.1]})
    assert table.columns == ("order", "kneser ney", "witten bell")
    assert table.rows == ((1, "3.000", "3.100"), (2, "2.000", "2.100"))


def test_pythons_help_is_a_text_of_its_own():
    text = datasets.python_help()
    assert len(text.characters) == len(text.tokens) == 300_000
    assert "\n" in text.symbols
    assert not text.claim
    assert max(map(ord, text.symbols)) < 128
