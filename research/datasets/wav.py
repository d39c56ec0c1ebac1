"""Reader of wav files with 16-bit mono samples."""

import io
import wave

import numpy as np
from jaxtyping import Int16

from research.reading.arrays import STUMBLES


def read_wav(content: bytes, rate: int, where: str) -> Int16[np.ndarray, "t"]:
    """Read the samples of a wav file: PCM, 16 bits, mono, at the given rate.

    Args:
      content: Content of the file.
      rate: Required number of samples per second.
      where: Name of the file, for error messages.
    Returns:
      The samples, int16, shape (t,).
    Raises:
      ValueError: The file has another format, is truncated or has no samples.
    """
    try:
        with wave.open(io.BytesIO(content)) as file:
            found = (file.getnchannels(), 8 * file.getsampwidth(), file.getframerate())
            samples, promised = file.readframes(file.getnframes()), file.getnframes()
    # A chunk that points outside the file raises a bare RuntimeError.
    except (wave.Error, *STUMBLES) as problem:
        raise ValueError(
            f"{where} is not a wav file of PCM samples: "
            f"{str(problem) or 'it is truncated or its header is damaged'}. Convert it."
        ) from problem
    if found != (1, 16, rate):
        raise ValueError(
            f"{where} must have 1 channel of 16 bits at {rate} Hz; it has {found[0]} "
            f"channel{'' if found[0] == 1 else 's'} of {found[1]} bits at {found[2]} "
            f"Hz. Convert it first, for example with ffmpeg -i in.wav -ac 1 -ar {rate} "
            "-c:a pcm_s16le out.wav"
        )
    if not promised:
        raise ValueError(
            f"{where} has a header and no samples: it is empty. Get the file again."
        )
    if len(samples) != 2 * promised:
        raise ValueError(
            f"{where} has {len(samples) // 2} samples, but its header says {promised}: "
            "it is truncated. Get the file again."
        )
    return np.frombuffer(samples, "<i2").astype(np.int16)
