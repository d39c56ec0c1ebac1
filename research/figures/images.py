"""Draw grids of small pictures: examples with captions, or first-layer filters."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

GAP = 0.14  # Distance between two pictures, as a share of their width.
LINE = 0.17  # Height of a caption line, as a share of a picture's height.
FONT_SIZE = 7.5
SIGNED = (
    "RdBu"  # Red: negative, white: 0, blue: positive; safe for colour-blind readers.
)
SHOWN = 0.99  # Share of the weights within the colour scale; the largest are outside.
CHANNELS = (1, 3)


def draw_images(
    axes: Axes, images: ArrayLike, captions: Sequence[str] = (), *, columns: int
) -> None:
    """Draw pictures row by row, each with its caption above it.

    Args:
      axes: Axes to draw on. The frame and the ticks of these axes are removed.
      images: n pictures, as bytes 0..255 of shape (n, H, W, C). H is the height, W is
        the width, and C is 1 (grey) or 3 (red, green, blue).
      captions: n captions, all with the same number of lines, or an empty sequence.
      columns: Number of pictures in a row.
    Raises:
      ValueError: images does not have the required shape or dtype, or the number of
        captions is wrong.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise ValueError(
            f"images must be bytes 0..255, of dtype uint8; got {images.dtype}. Convert "
            "them, or use draw_filters."
        )
    _draw_grid(
        axes, images, captions, columns, "gray", lambda image: image, (0.0, 255.0)
    )


def draw_filters(
    axes: Axes, filters: ArrayLike, captions: Sequence[str] = (), *, columns: int
) -> None:
    """Draw the weights of a first layer, one picture for each output of the layer.

    All filters are drawn with one colour scale, with 0 in the middle. The scale ends at
    the 99 % quantile of the absolute weights, because a few large weights would
    otherwise make all other weights pale. If a filter has one channel, 0 is white,
    positive weights are blue and negative weights are red. If a filter has three
    channels, 0 is grey, and the three weights of a pixel are shown as red, green and
    blue.

    Args:
      axes: Axes to draw on. The frame and the ticks of these axes are removed.
      filters: Weights of shape (n, H, W, C), with C = 1 or 3. If you have the weights
        of a convolution, shape (H, W, C, n), move the last axis to the front. If you
        have the weights of a dense layer, shape (H W C, n), transpose them and reshape
        them to (n, H, W, C).
      captions: n captions, all with the same number of lines, or an empty sequence.
      columns: Number of filters in a row.
    Raises:
      ValueError: filters does not have the required shape, or the number of captions is
        wrong.
    """
    filters = np.asarray(filters, float)
    limit = (
        float(np.quantile(np.abs(filters), SHOWN, method="higher")) or 1.0
        if filters.size
        else 1.0
    )

    def colours(image: np.ndarray):
        return (
            image if image.shape[-1] == 1 else 0.5 + 0.5 * np.clip(image / limit, -1, 1)
        )

    _draw_grid(axes, filters, captions, columns, SIGNED, colours, (-limit, limit))


def _draw_grid(
    axes: Axes,
    images: np.ndarray,
    captions: Sequence[str],
    columns: int,
    shades: str,
    colours: Callable[[np.ndarray], np.ndarray],
    limits: tuple[float, float],
) -> None:
    _check(images, captions, columns)
    number, height, width = images.shape[:3]
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    across, down = width * (1 + GAP), height * (1 + GAP + LINE * lines)
    for index, image in enumerate(images):
        left, top = across * (index % columns), down * (index // columns)
        place = (left, left + width, top + height, top)
        axes.imshow(
            colours(image).squeeze(-1) if image.shape[-1] == 1 else colours(image),
            cmap=shades,
            vmin=limits[0],
            vmax=limits[1],
            extent=place,
            interpolation="none",
        )
        if captions:
            text = {
                "ha": "center",
                "va": "bottom",
                "fontsize": FONT_SIZE,
                "linespacing": 1.1,
            }
            axes.text(left + width / 2, top - 0.03 * height, captions[index], **text)
    columns = min(columns, number)
    rows = -(-number // columns)
    axes.set_xlim(-GAP * width, across * columns)
    axes.set_ylim(down * rows - LINE * lines * height, -(GAP + LINE * lines) * height)
    axes.set_aspect("equal")
    axes.axis("off")


def _check(images: np.ndarray, captions: Sequence[str], columns: int) -> None:
    if images.ndim != 4 or not len(images) or images.shape[-1] not in CHANNELS:
        raise ValueError(
            "images or filters must have shape (n, H, W, C) with n at least 1 and C = "
            f"1 (grey) or 3 (colours); got shape {images.shape}. Pass one picture as "
            "picture[None], and add an axis of length 1 at the end of grey pictures."
        )
    if len(captions) not in (0, len(images)):
        raise ValueError(
            f"captions must be empty, or one for each picture; got {len(captions)} "
            f"captions for {len(images)} pictures."
        )
    if columns < 1:
        raise ValueError(f"columns must be a positive integer; got columns={columns}.")
