"""Check that image files and arrays of the user have the format that a model takes."""

import shlex
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from research.checks import check_numbers, check_path
from research.reading import check_regular
from research.reading.arrays import STUMBLES

MODES = {1: "L", 3: "RGB"}  # Pillow's name of images with so many channels.
# What Pillow raises for damaged files, besides OSError.
DAMAGES = (*STUMBLES, Image.DecompressionBombError)
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
ORIENTATION = 0x0112  # Tag of EXIF: how a camera was held.
GREY = "(images[..., :3] @ [0.299, 0.587, 0.114]).round().astype(np.uint8)[..., None]"


def read_image(
    path: str | Path, shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "H W C"]:
    """Read an image file that has exactly the size and the channels that a model takes.

    The image is not resized or converted. There are many ways to do this, and the
    prediction of the model would depend on the way. If the image does not fit, the
    error message says how to convert the image.

    Args:
      path: PNG or another format that Pillow reads, with 8 bits per channel.
      shape: Shape (H, W, C) of the images that the model was trained on: height, width,
        and number of channels. C is 1 (grey) or 3 (RGB).
    Returns:
      The pixels, uint8, shape (H, W, C).
    Raises:
      ValueError: shape is not (H, W, 1) or (H, W, 3). Or the file is not an image, is
        damaged, has several frames, has another size or other channels, or is stored
        rotated (as its EXIF data say).
      OSError: The file cannot be read.
    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "shoe.png"
      >>> Image.new("RGB", (64, 48)).save(path)
      >>> read_image(path, (28, 28, 1))
      Traceback (most recent call last):
      ValueError: .../shoe.png has 64 x 48 pixels in mode RGB; the model takes ...
    """
    check_path("path", path)
    height, width, channels = _checked_shape(shape)
    check_regular(path)
    try:
        with warnings.catch_warnings(action="error"), Image.open(path) as image:
            fault, mode = _fault(image, (width, height), MODES[channels]), image.mode
            # The size is checked before the pixels are decoded.
            pixels = np.asarray(image) if not fault else None
    except OSError as error:
        if error.errno is not None:  # The file cannot be opened.
            raise
        raise ValueError(
            f"{path} is not an image, or is damaged: {error}. Save it again as PNG."
        ) from error
    except (*DAMAGES, Warning) as error:
        raise ValueError(f"{path} is a damaged image: {error}.") from error
    if pixels is None:
        raise ValueError(
            f"{path} {fault}; the model takes {width} x {height} pixels in mode "
            f"{MODES[channels]}. Convert it: {_command(Path(path), shape, mode)}"
        )
    return pixels.reshape(height, width, channels)


def check_images(
    images: Any, shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "*batch H W C"]:
    """Check that images have the format that a model takes: uint8, channels last.

    Args:
      images: One image, or an array of images with any number of leading axes.
      shape: Shape (H, W, C) of one image of the training data: height, width, and
        number of channels.
    Returns:
      The images as a NumPy array of uint8, shape (..., H, W, C).
    Raises:
      TypeError: The dtype is not uint8. The message says how to convert it.
      ValueError: The size, the number of channels or the order of the axes does not fit
        `shape`. The message says what to do.
    Example:
      >>> check_images(np.zeros((5, 3, 32, 32), np.uint8), (32, 32, 3))
      Traceback (most recent call last):
      ValueError: images must have shape (..., 32, 32, 3); got shape (5, 3, 32, 32). ...
    """
    check_numbers("images", images)
    expected, found = _checked_shape(shape), np.asarray(images)
    if found.shape[-3:] != expected:
        raise ValueError(
            f"images must have shape (..., {', '.join(map(str, expected))}); got shape "
            f"{found.shape}. {_how_to_reshape(found.shape, expected)}"
        )
    if found.dtype != np.uint8:
        raise TypeError(
            f"images must be uint8, with values 0 to 255; got {found.dtype}"
            f"{_range(found)}. {_how_to_convert(found)}"
        )
    return found


def _checked_shape(shape: Any) -> tuple[int, int, int]:
    is_shape = isinstance(shape, tuple | list) and len(shape) == 3
    if (
        not is_shape
        or not all(isinstance(n, int) and n > 0 for n in shape)
        or shape[2] not in MODES
    ):
        raise ValueError(
            f"shape must be (H, W, C), with C = 1 or C = 3; got shape={shape!r}."
        )
    return tuple(shape)


def _fault(image: Image.Image, size: tuple[int, int], mode: str) -> str:
    num_frames = getattr(image, "n_frames", 1)
    if num_frames > 1:
        return f"has {num_frames} frames"
    if (image.size, image.mode) != (size, mode):
        return f"has {image.size[0]} x {image.size[1]} pixels in mode {image.mode}"
    if image.getexif().get(ORIENTATION, 1) != 1:
        return "is stored turned, as its EXIF data say"
    return ""


def _command(path: Path, shape: tuple[int, int, int], mode: str) -> str:
    """Return a command that converts an image in Pillow's `mode`, or else advice."""
    if mode in ("I", "F"):
        return f"scale its values to 0 to 255 first, because mode {mode} has no range."
    height, width, channels = shape
    target = path.with_name(f"{path.stem}-{width}x{height}.png")
    # Pillow's convert would cut all values above 255 off.
    wide = ".convert('I').point(lambda v: v * (1 / 257))"
    scaled = wide if mode in SIXTEEN_BITS else ""
    program = (
        "from PIL import Image, ImageOps; "
        f"ImageOps.exif_transpose(Image.open({str(path)!r})){scaled}"
        f".convert({MODES[channels]!r}).resize(({width}, {height}))"
        f".save({str(target)!r})"
    )
    plain = not set(program) & set('"$`\\!')
    return "python -c " + (f'"{program}"' if plain else shlex.quote(program))


def _how_to_reshape(found: tuple[int, ...], expected: tuple[int, int, int]) -> str:
    height, width, channels = expected
    if found[-3:] == (channels, height, width):
        return "The channels come first: np.moveaxis(images, -3, -1)."
    if found[-3:] == (width, height, channels):
        return "Height and width are exchanged: np.swapaxes(images, -3, -2)."
    if channels == 1 and found[-2:] == (height, width):
        return "Grey images need an axis for their channel: images[..., None]."
    if found[-1:] == (height * width * channels,):
        return f"Flat images: images.reshape(-1, {height}, {width}, {channels})."
    if found[-3:-1] == (height, width) and found[-1] == 4 and channels == 3:
        return "The fourth channel is transparency: images[..., :3]."
    if found[-3:-1] == (height, width) and found[-1] in (3, 4) and channels == 1:
        return f"Convert colours to grey: {GREY}."
    if found[-3:-1] == (height, width) and found[-1] == 1 and channels == 3:
        return "Repeat the grey channel: np.repeat(images, 3, axis=-1)."
    return (
        f"Resize each image, for example with Pillow: Image.fromarray(image)"
        f".resize(({width}, {height})) (width first)."
    )


def _range(found: np.ndarray) -> str:
    if not found.size or found.dtype.kind not in "iuf":
        return ""
    return f" from {found.min():g} to {found.max():g}"


def _how_to_convert(found: np.ndarray) -> str:
    kind = found.dtype.kind
    low, high = (found.min(), found.max()) if found.size and kind in "iuf" else (0, 0)
    if kind == "b":
        return "Write 255 * images.astype(np.uint8)."
    if kind == "f" and low >= 0 and high <= 1:
        return "They are scaled to 0..1: np.round(255 * images).astype(np.uint8)."
    if kind in "iuf" and low >= 0 and high <= 255:
        return "Write np.round(images).astype(np.uint8)."
    if kind == "u" and found.dtype.itemsize == 2:
        return "They have 16 bits: (images // 257).astype(np.uint8)."
    return "Undo the scaling first: a model's own mean and sd standardise bytes."
