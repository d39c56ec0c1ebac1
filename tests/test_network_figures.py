"""The pictures of networks held against the arrays they are drawn from."""

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from research import figures
from research.figures import confusion, images

COUNTS = np.array([[90, 9, 1], [0, 50, 50], [3, 3, 4]])
CLASSES = ("cat", "dog", "axolotl")


def new_axes():
    return figures.new_figure()[1][0, 0]


def luminance(colour):
    """Relative luminance of an sRGB colour, by WCAG 2.1."""
    channels = np.asarray(to_rgb(colour))
    linear = np.where(
        channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
    )
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.fixture(scope="module")
def matrix():
    axes = new_axes()
    confusion.draw_confusion(axes, COUNTS, CLASSES)
    return axes


def test_confusion_says_each_count_where_its_row_and_column_are_and_nothing_of_none(
    matrix,
):
    said = {
        (text.get_position()[1], text.get_position()[0]): text.get_text()
        for text in matrix.texts
    }
    assert said == {
        place: str(count) for place, count in np.ndenumerate(COUNTS) if count
    }
    assert [label.get_text() for label in matrix.get_xticklabels()] == list(CLASSES)
    assert [label.get_text() for label in matrix.get_yticklabels()] == list(CLASSES)


def test_confusion_is_shaded_by_the_share_of_the_row(matrix):
    shown = matrix.images[0]
    np.testing.assert_allclose(
        shown.get_array(), COUNTS / COUNTS.sum(axis=1, keepdims=True)
    )
    shares = np.linspace(0, 1, 21)
    light = np.array(
        [luminance(colour) for colour in shown.cmap(shown.norm(shares))[:, :3]]
    )
    assert np.all(np.diff(light) < 0)  # Darker and darker, without colours too.
    assert (
        light[0] - luminance(shown.cmap(shown.norm(0.01))[:3]) > 0.1
    )  # One in a hundred is seen.


def test_every_count_is_readable_on_its_shade():
    size = 101
    counts = np.stack(
        [np.arange(size), 100 - np.arange(size)], axis=1
    )  # Shares 0, 0.01, ..., 1, two in a row.
    axes = new_axes()
    confusion.draw_confusion(axes, np.pad(counts, ((0, 0), (0, size - 2))), [""] * size)
    shown = axes.images[0]
    assert len(axes.texts) == 200
    for text in axes.texts:
        column, row = map(int, text.get_position())
        light = (
            luminance(shown.cmap(shown.norm(shown.get_array()[row, column]))[:3]),
            luminance(text.get_color()),
        )
        assert (max(light) + 0.05) / (min(light) + 0.05) >= 4.5, counts[row]


def test_class_without_examples_is_an_empty_row():
    axes = new_axes()
    confusion.draw_confusion(axes, [[1, 0], [0, 0]], ["a", "b"])
    assert [text.get_text() for text in axes.texts] == ["1"]


@pytest.mark.parametrize("counts", [COUNTS[:2], COUNTS[:, :2], -COUNTS, COUNTS[0]])
def test_what_is_no_confusion_matrix_is_refused(counts):
    with pytest.raises(
        ValueError,
        match=r"counts must have shape \(3, 3\) for 3 classes, without negative",
    ):
        confusion.draw_confusion(new_axes(), counts, CLASSES)


def boxes(axes):
    """(left, right, top, bottom) of each picture."""
    return np.array(
        [
            [min(e[:2]), max(e[:2]), min(e[2:]), max(e[2:])]
            for e in (i.get_extent() for i in axes.images)
        ]
    )


@pytest.mark.parametrize(("number", "columns"), [(7, 3), (2, 5), (1, 1)])
def test_pictures_stand_row_by_row_upright_apart_and_within_the_axes(number, columns):
    axes, drawn = (
        new_axes(),
        np.random.default_rng(0).integers(0, 256, (number, 4, 6, 1), dtype=np.uint8),
    )
    images.draw_images(
        axes, drawn, [f"{i}\nis it" for i in range(number)], columns=columns
    )
    for shown, image in zip(axes.images, drawn, strict=True):
        np.testing.assert_array_equal(shown.get_array(), image[..., 0])
        assert (
            shown.get_extent()[3] < shown.get_extent()[2]
        )  # The first row at the top: y grows downwards.
        assert shown.get_clim() == (0, 255)
    left, right, top, bottom = boxes(axes).T
    np.testing.assert_allclose((right - left) / (bottom - top), 6 / 4)
    for i in range(number - 1):
        same_row = (i + 1) % columns
        assert (
            left[i + 1] > right[i]
            if same_row
            else (top[i + 1] > bottom[i] and left[i + 1] == left[0])
        )
    (low, high), (lowest, highest) = axes.get_xlim(), axes.get_ylim()
    assert low <= left.min()
    assert right.max() <= high
    assert highest <= top.min()
    assert bottom.max() <= lowest
    for i, text in enumerate(axes.texts):
        assert text.get_text() == f"{i}\nis it"
        x, y = text.get_position()
        assert left[i] < x < right[i]
        assert (bottom[i - columns] if i >= columns else highest) < y < top[i]


def test_pictures_in_colours_are_shown_as_they_are():
    axes, drawn = (
        new_axes(),
        np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8),
    )
    images.draw_images(axes, drawn, columns=2)
    np.testing.assert_array_equal(axes.images[1].get_array(), drawn[1])


def test_filters_share_one_scale_in_whose_middle_is_nothing():
    axes, filters = new_axes(), np.array([[[[1.0], [0.0]]], [[[4.0], [-2.0]]]])
    images.draw_filters(axes, filters, columns=2)
    assert [image.get_clim() for image in axes.images] == [(-4, 4), (-4, 4)]
    shade = axes.images[0].cmap
    assert min(shade(0.5)[:3]) > 0.95  # White.
    blue, red = shade(1.0), shade(0.0)
    assert blue[2] > blue[0]
    assert red[0] > red[2]
    np.testing.assert_array_equal(axes.images[1].get_array(), [[4, -2]])
    assert shade == colormaps[images.SIGNED]


@pytest.mark.parametrize("channels", [1, 3])
def test_one_large_weight_leaves_the_others_their_shade(channels):
    axes, filters = (
        new_axes(),
        np.random.default_rng(0).normal(size=(4, 8, 8, channels)),
    )
    filters[0, 0, 0] = 1000.0
    images.draw_filters(axes, filters, columns=4)
    assert 2 < axes.images[0].get_clim()[1] < 4
    shown = axes.images[1].get_array()
    assert np.ptp(shown) > (2 if channels == 1 else 0.5)
    if channels == 3:
        assert axes.images[0].get_array()[0, 0].tolist() == [1, 1, 1]


def test_filters_of_three_channels_are_grey_where_they_are_0_and_keep_their_order():
    axes, filters = new_axes(), np.array([[[[0.0, 0.0, 0.0], [2.0, 0.0, -1.0]]]])
    images.draw_filters(axes, filters, columns=1)
    np.testing.assert_allclose(
        axes.images[0].get_array(), [[[0.5, 0.5, 0.5], [1.0, 0.5, 0.25]]]
    )


def test_filters_of_nothing_but_0_are_drawn():
    images.draw_filters(new_axes(), np.zeros((2, 3, 3, 1)), columns=2)


@pytest.mark.parametrize(
    ("pictures", "captions", "columns", "words"),
    [
        (np.zeros((4, 4, 1), np.uint8), (), 1, r"shape \(n, H, W, C\).*\(4, 4, 1\)"),
        (np.zeros((0, 4, 4, 1), np.uint8), (), 1, "with n at least 1"),
        (np.zeros((1, 4, 4, 2), np.uint8), (), 1, r"C = 1 \(grey\) or 3"),
        (np.zeros((1, 4, 4, 1), float), (), 1, "dtype uint8; got float64"),
        (np.zeros((2, 4, 4, 1), np.uint8), ("a",), 1, "got 1 captions for 2 pictures"),
        (np.zeros((2, 4, 4, 1), np.uint8), (), 0, "columns=0"),
    ],
)
def test_what_cannot_be_a_grid_is_refused(pictures, captions, columns, words):
    with pytest.raises(ValueError, match=words):
        images.draw_images(new_axes(), pictures, captions, columns=columns)
