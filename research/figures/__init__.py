"""Draw saved arrays as matplotlib figures in a common style."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from research.checks import (
    check_count,
    check_instance,
    check_number,
    check_numbers,
    check_path,
    check_text,
    shown,
)

# Okabe & Ito's palette, which colour-blind readers can distinguish. The keys are
# regimes, so that a regime has the same colour in all figures.
COLOURS = {
    "full batch": "#0072B2",
    "mini-batch": "#009E73",
    "stochastic": "#D55E00",
    "decaying": "#CC79A7",
    "exact": "#222222",
    "data": "#8A8F98",
    "first class": "#0072B2",
    "second class": "#E69F00",
}

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E8EB",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "svg.hashsalt": "descent",  # The same arrays give the same SVG bytes.
    "svg.fonttype": "path",
}


class Picture(NamedTuple):
    """Figure with a title, a caption, and perhaps an animation.

    Attributes:
      title: Title of a few words.
      caption: Description of the content, with the important numbers. Readers who
        cannot see the picture get this text.
      figure: Still figure, or the text of an SVG file, such as
        `research.derivatives.Ledger.svg` returns.
      motion: Bytes of a looping APNG, from `research.figures.motion.record`. None means
        that there is no animation.
    """

    title: str
    caption: str
    figure: Figure | str
    motion: bytes | None = None


class Saved(NamedTuple):
    """Title, caption and file paths of a saved picture.

    `still` is the path of the SVG file. `motion` is the path of the animated PNG, or
    None if the picture has no animation.
    """

    title: str
    caption: str
    still: Path
    motion: Path | None


def style():
    """Return a context in which figures are drawn in the common style.

    Settings outside the context are not changed.
    """
    return mpl.rc_context(_STYLE)


def new_figure(
    rows: int = 1,
    columns: int = 1,
    *,
    width: float = 9.0,
    height: float = 4.2,
    **keywords: Any,
):
    """Return a figure in the common style with an array of axes.

    Args:
      rows, columns: Numbers of rows and columns of axes.
      width, height: Size of the whole figure in inches.
      **keywords: Arguments for `Figure.subplots` (sharex, sharey, width_ratios, ...).
    Returns:
      (figure, axes), with axes of shape (rows, columns).
    """
    check_count("rows", rows)
    check_count("columns", columns)
    check_number("width", width, positive=True, below=1000.0)
    check_number("height", height, positive=True, below=1000.0)
    with style():
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **keywords)
    return figure, axes


def save(picture: Picture, folder: Path | str, name: str) -> Saved:
    """Write a picture as name.svg and name.png, and its animation as name.apng.

    If the figure of the picture is the text of an SVG file, name.png is not written.
    The file name.apng is written only if the picture has an animation. A ValueError is
    raised if `name` contains a folder, or if `folder` does not exist.

    Returns:
      Title, caption and paths of the picture.
    """
    check_instance(
        "picture",
        picture,
        Picture,
        "Write research.figures.Picture(title, caption, figure).",
    )
    check_text("picture.title", picture.title)
    check_text("picture.caption", picture.caption)
    _check_figure("picture.figure", picture.figure)
    check_instance("picture.motion", picture.motion, (bytes, type(None)))
    check_path("folder", folder)
    check_text("name", name)
    if not name or Path(name).name != name:
        raise ValueError(
            f"name must be a file name without folders; got name={name!r}."
        )
    if not Path(folder).is_dir():
        raise ValueError(
            "folder must exist before a picture is saved in it; got "
            f"folder={str(folder)!r}."
        )
    folder = Path(folder)
    still = folder / f"{name}.svg"
    still.write_bytes(svg_bytes(picture.figure))
    if isinstance(picture.figure, Figure):
        with style():
            picture.figure.savefig(folder / f"{name}.png", dpi=150)
    motion = None
    if picture.motion is not None:
        motion = folder / f"{name}.apng"
        motion.write_bytes(picture.motion)
    return Saved(picture.title, picture.caption, still, motion)


def svg_bytes(figure: Figure | str) -> bytes:
    """Return the bytes of an SVG file that shows a figure.

    With the same version of matplotlib, equal figures give equal bytes.

    Args:
      figure: The figure, or the text of an SVG file, which is returned as it is.
    """
    _check_figure("figure", figure)
    if isinstance(figure, str):
        return figure.encode()
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _check_figure(name: str, figure: Any) -> None:
    hint = "Make one by new_figure."
    check_instance(name, figure, (Figure, str), hint)
    if isinstance(figure, str) and not figure.startswith("<svg "):
        raise ValueError(
            f"{name} must be a figure, or the text of an SVG file, which starts "
            f"with '<svg '; got {shown(figure)}. {hint}"
        )


def colour(regime: str) -> str:
    """Return the colour of a regime of gradient descent, such as full batch.

    The name of the regime must contain "decaying", "full batch", "mini-batch" or
    "stochastic". Otherwise a ValueError is raised. If the name contains several of
    these words, the word that comes first in this list determines the colour. The
    result is a hexadecimal colour code, such as "#0072B2".
    """
    check_text("regime", regime)
    for word in ("decaying", "full batch", "mini-batch", "stochastic"):
        if word in regime:
            return COLOURS[word]
    raise ValueError(
        "regime must contain decaying, full batch, mini-batch or stochastic; got "
        f"regime={regime!r}."
    )


def band(
    axes: Axes,
    x: Float[np.ndarray, " k"],
    middle: Float[np.ndarray, " k"],
    low: Float[np.ndarray, " k"],
    high: Float[np.ndarray, " k"],
    **style: Any,
) -> None:
    """Draw the line (x, middle), with a band from `low` to `high`.

    **style are keyword arguments of `Axes.plot` for the line. The band has the colour
    of the line. Where a value is not finite, the line or the band has a gap.
    """
    check_instance("axes", axes, Axes, "Take them from new_figure.")
    for name, values in (("x", x), ("middle", middle), ("low", low), ("high", high)):
        check_numbers(name, values, ndim=1)
        if len(values) != len(x):
            raise ValueError(
                f"{name} must have the length of x, {len(x)}; got {len(values)}."
            )
    line = axes.plot(x, np.where(np.isfinite(middle), middle, np.nan), **style)[0]
    fine = np.isfinite(low) & np.isfinite(high)
    axes.fill_between(
        x, low, high, where=fine, color=line.get_color(), alpha=0.18, linewidth=0
    )
