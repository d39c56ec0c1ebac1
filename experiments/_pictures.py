"""Keep the first picture of a run beside its reference, small and with its caption."""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.sax.saxutils import escape

from PIL import Image, PngImagePlugin

import research
from research.cli import report_of
from research.figures import Picture

LARGEST = 100_000  # Bytes; version control stores every picture for ever.
# Widths of a PNG file in pixels. The first that makes the file small enough is used.
WIDTHS = (1200, 1000, 800, 640)
COLOURS = 64
METADATA = (
    '<metadata><dc:description xmlns:dc="http://purl.org/dc/elements/1.1/">'
    "{caption}</dc:description></metadata>"
)


def keep_picture(
    experiment: ModuleType, result: research.runs.Result, folder: Path
) -> Path:
    """Draw a result again, and write the first picture to <folder>/<experiment>.svg.

    If the SVG file would be too large, a PNG file is written. The caption of the
    picture is in the metadata of the file, as a text for those who do not see it.

    Args:
      experiment: Module of the experiment.
      result: Result of a finished run.
      folder: Folder of the references.
    Returns:
      Path of the written file. A file with the other suffix is removed.
    Raises:
      ValueError: The picture cannot be made small enough.
    """
    with research.figures.style():
        picture = next(iter(report_of(experiment).draw(result).values()))
    return write_picture(short_name(experiment), picture, folder)


def keep_picture_of_reference(
    experiment: ModuleType, reference: Mapping[str, Any], folder: Path
) -> Path:
    """Draw the numbers of a stored reference, and write the picture as `keep_picture`.

    The report of the experiment draws it: `draw_reference(reference)` returns a
    Picture. It shows nothing that the reference does not contain.

    Raises:
      ValueError: The report has no draw_reference, or the picture is too large.
    """
    report = report_of(experiment)
    if not hasattr(report, "draw_reference"):
        raise ValueError(
            f"The picture of {short_name(experiment)} needs more numbers than its "
            "reference keeps. Run the experiment, and keep its folder."
        )
    with research.figures.style():
        picture = report.draw_reference(reference)
    return write_picture(short_name(experiment), picture, folder)


def short_name(experiment: ModuleType) -> str:
    """Return the name of an experiment without its package."""
    return experiment.__name__.rpartition(".")[2]


def write_picture(name: str, picture: Picture, folder: Path) -> Path:
    """Write a picture to <folder>/<name>.svg, or .png if the SVG file is too large."""
    with research.figures.style():
        data, suffix = as_svg(picture), ".svg"
        if len(data) > LARGEST:
            data, suffix = as_png(picture), ".png"
    if len(data) > LARGEST:
        raise ValueError(
            f"the picture of {name} would have {len(data):,} bytes; at most "
            f"{LARGEST:,} are allowed. Draw fewer points or panels in its first "
            "picture."
        )
    file = folder / f"{name}{suffix}"
    research.runs.write_atomically(file, data)
    remove_other(file)
    return file


def remove_other(file: Path) -> None:
    """Remove the earlier picture that differs from `file` only in the suffix."""
    for suffix in {".svg", ".png"} - {file.suffix}:
        file.with_suffix(suffix).unlink(missing_ok=True)


def as_svg(picture: Picture) -> bytes:
    """Return a picture as an SVG file with its caption as description."""
    if isinstance(picture.figure, str):
        words = METADATA.format(caption=escape(picture.caption))
        return re.sub(
            r"<svg [^>]*>", lambda tag: tag[0] + words, picture.figure, count=1
        ).encode()
    file = io.BytesIO()
    metadata = {"Date": None, "Description": picture.caption}
    picture.figure.savefig(file, format="svg", metadata=metadata)
    return file.getvalue()


def as_png(picture: Picture) -> bytes:
    """Return a picture as the widest PNG file that is small enough, or the smallest."""
    if isinstance(picture.figure, str):
        return picture.figure.encode()  # Nothing here draws the text of an SVG file.
    data = b""
    for width in WIDTHS:
        drawn = io.BytesIO()
        dpi = width / picture.figure.get_size_inches()[0]
        picture.figure.savefig(drawn, format="png", dpi=dpi)
        data = fewer_colours(drawn, picture.caption)
        if len(data) <= LARGEST:
            break
    return data


def fewer_colours(drawn: io.BytesIO, caption: str) -> bytes:
    """Return a PNG file with fewer colours than `drawn`, and with a caption."""
    words = PngImagePlugin.PngInfo()
    words.add_itxt("Description", caption)
    file = io.BytesIO()
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(COLOURS).save(
            file, "png", optimize=True, pnginfo=words
        )
    return file.getvalue()
