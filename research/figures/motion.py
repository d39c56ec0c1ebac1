"""Record an animated figure as a small looping APNG with a fixed layout and palette."""

import io
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

CUBE = 12  # Side of a cube of colours (0..255) that share one entry of the palette.


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
    """Record an animation of a figure as an APNG.

    The layout is computed for the first frame and used for all frames, so that nothing
    shifts. All frames use one palette of at most `colours` colours. In full colour, the
    file would be several times as large.

    Args:
      figure: Figure to record. Afterwards the figure shows the last frame.
      show: Function (k) -> None that changes the figure's artists to frame k, for k in
        0..num_frames - 1.
      num_frames: Number of frames, at least 2.
      seconds: Duration of the loop in seconds, without `hold`.
      hold: Number of additional seconds for which the last frame is shown.
      dpi: Dots per inch.
      colours: Largest number of colours in the palette, in 2..256. Fewer colours make a
        smaller file.
    Returns:
      Bytes of a looping APNG.
    Raises:
      ValueError: num_frames is below 2, or colours is out of range.
    Example:
      >>> figure = Figure(figsize=(1, 1))
      >>> line = figure.subplots().plot([0, 1])[0]
      >>> film = record(figure, lambda k: line.set_ydata([0, k]), 3)
      >>> Image.open(io.BytesIO(film)).n_frames
      3
    """
    if num_frames < 2:
        raise ValueError(
            f"num_frames must be at least 2; got num_frames={num_frames}. For a still "
            "picture use figures.save."
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
    """Return the most frequent colours, at most one of each group of similar colours.

    The colours are not averages of a group but occur in the images, so that white stays
    white.
    """
    codes, counts = np.unique(
        np.concatenate([_codes(image).ravel() for image in images]), return_counts=True
    )
    channels = _channels(codes[np.argsort(-counts, kind="stable")])
    _, first = np.unique(_codes(channels // CUBE), return_index=True)
    return channels[np.sort(first)[:colours]]


def _painted(image: np.ndarray, palette: np.ndarray) -> Image.Image:
    """Convert an image to the nearest colours of a palette."""
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
