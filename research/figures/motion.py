"""A figure that changes, as a small looping APNG: laid out once, drawn once a frame, and all in one palette."""

import io
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

CUBE = 12  # Side of a cube of colours that share an entry of the palette, out of 256.


def record(
    figure: Figure,
    show: Callable[[int], object],
    num_frames: int,
    *,
    seconds: float = 6.0,
    hold: float = 1.5,
    dpi: int = 80,
    colours: int = 96,
) -> bytes:
    """Films a figure, frame after frame.

    The layout is that of the first frame and then stays, so that nothing trembles. Frames of one palette are kept as
    palettes are (Pillow widens others to full colour, at several times the size).

    Args:
      figure: What is filmed; it is left as the last frame shows it.
      show: k -> None, for k in 0..num_frames - 1: changes the figure's artists to what frame k is to show.
      num_frames: At least 2.
      seconds: Length of the loop, without the hold.
      hold: How long the last frame stays, in seconds.
      dpi: Dots an inch.
      colours: Of the palette, in 2..256; few make a small file.
    Returns:
      The bytes of a looping APNG.
    Raises:
      ValueError: num_frames is below 2, or colours are out of range.
    Example:
      >>> figure = Figure(figsize=(1, 1))
      >>> line = figure.subplots().plot([0, 1])[0]
      >>> film = record(figure, lambda k: line.set_ydata([0, k]), 3)
      >>> Image.open(io.BytesIO(film)).n_frames
      3
    """
    if num_frames < 2:
        raise ValueError(
            f"num_frames must be at least 2; got num_frames={num_frames}. A still is figures.save's work."
        )
    if not 2 <= colours <= 256:
        raise ValueError(f"colours must lie in 2..256; got colours={colours}.")
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    images = []
    for k in range(num_frames):
        show(k)
        canvas.draw()
        figure.set_layout_engine("none")
        images.append(np.array(canvas.buffer_rgba())[..., :3])
    palette = _palette(images[:: max(1, num_frames // 6)] + images[-1:], colours)
    frames = [_painted(image, palette) for image in images]
    each = round(1000 * seconds / num_frames)
    durations = [each] * (num_frames - 1) + [each + round(1000 * hold)]
    out = io.BytesIO()
    frames[0].save(
        out,
        format="PNG",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        optimize=True,
    )
    return out.getvalue()


def _palette(images: Sequence[np.ndarray], colours: int) -> np.ndarray:
    """The commonest colours, one of each small cube of them, exact: white stays white, as averages would not have it."""
    codes, counts = np.unique(
        np.concatenate([_codes(image).ravel() for image in images]), return_counts=True
    )
    channels = _channels(codes[np.argsort(-counts, kind="stable")])
    _, first = np.unique(_codes(channels // CUBE), return_index=True)
    return channels[np.sort(first)[:colours]]


def _painted(image: np.ndarray, palette: np.ndarray) -> Image.Image:
    """The image in the palette's nearest colours."""
    codes, places = np.unique(_codes(image), return_inverse=True)
    distances = np.sum((_channels(codes)[:, None] - palette) ** 2, axis=-1)
    painted = Image.fromarray(
        np.argmin(distances, axis=1).astype(np.uint8)[places].reshape(image.shape[:2])
    )
    painted.putpalette(palette.astype(np.uint8).tobytes())
    return painted


def _codes(channels: np.ndarray) -> np.ndarray:
    return channels.astype(np.int64) @ np.array([65536, 256, 1])


def _channels(codes: np.ndarray) -> np.ndarray:
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1)
