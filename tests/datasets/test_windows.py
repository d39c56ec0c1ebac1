"""Windows of a text: each token predicted once, none outside."""

import numpy as np
import pytest

from research import datasets


@pytest.mark.parametrize("num_tokens", [4, 5, 10, 11, 12, 13])
@pytest.mark.parametrize("context", [1, 2, 3])
def test_windows_predict_each_token_once_but_the_first_and_a_short_rest(
    num_tokens, context
):
    found = datasets.windows(
        np.arange(num_tokens), datasets.window_starts(num_tokens, context), context
    )
    predicted = found[:, 1:].ravel().tolist()
    assert predicted == list(range(1, len(predicted) + 1))
    assert num_tokens - 1 - len(predicted) < context


def test_stride_one_gives_every_window():
    starts = datasets.window_starts(7, 3, stride=1)
    assert starts.dtype == np.int32
    expected = np.lib.stride_tricks.sliding_window_view(np.arange(7), 4)
    np.testing.assert_array_equal(datasets.windows(np.arange(7), starts, 3), expected)


def test_half_full_windows_predict_what_follows_the_first_half_once():
    # The last two of four positions, windows two apart: each token from the third on,
    # but for a rest.
    found = datasets.windows(np.arange(12), datasets.window_starts(12, 4, stride=2), 4)[
        :, 3:
    ]
    assert found.ravel().tolist() == list(range(3, 11))


def test_offset_moves_the_first_start():
    assert datasets.window_starts(10, 3, offset=2).tolist() == [2, 5]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"context": 0}, "context must be a positive integer; got context=0"),
        ({"stride": 0}, "stride must be a positive integer"),
        ({"offset": -1}, "offset must be an integer of at least 0; got offset=-1"),
        (
            {"num_tokens": 3},
            (
                "needs context \\+ 1 = 4 tokens from offset=0 on, but the text has "
                "num_tokens=3"
            ),
        ),
        ({"num_tokens": 2**31}, "below 2\\*\\*31"),
    ],
)
def test_bad_windows_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        datasets.window_starts(**({"num_tokens": 10, "context": 3} | arguments))


@pytest.mark.parametrize("start", [-1, 7])
def test_window_outside_the_text_is_named(start):
    with pytest.raises(ValueError, match=rf"starts must lie in 0\.\.6.*got {start}"):
        datasets.windows(np.arange(10), np.array([0, start]), 3)
