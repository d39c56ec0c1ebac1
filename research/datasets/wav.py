"""A wav file of 16-bit mono samples."""

import io
import wave

import numpy as np

from research.reading.arrays import STUMBLES


def read_wav(content: bytes, rate: int, where: str) -> np.ndarray:
    """Reads the samples of a wav file, and refuses every other kind than PCM, 16 bits, mono, of the given rate.

    Args:
      content: The file's bytes.
      rate: Samples a second that it must have.
      where: Its name, for messages.
    Returns:
      Shape (t,), int16.
    Raises:
      ValueError: It is no such file, or it is cut off.
    """
    try:
        with wave.open(io.BytesIO(content)) as file:
            found = (file.getnchannels(), 8 * file.getsampwidth(), file.getframerate())
            samples, promised = file.readframes(file.getnframes()), file.getnframes()
    except (
        wave.Error,
        *STUMBLES,
    ) as problem:  # A chunk that points outside of the file is a bare RuntimeError.
        raise ValueError(
            f"{where} is no wav file of PCM samples: {str(problem) or 'it is cut off or its head is damaged'}. Convert it."
        ) from problem
    if found != (1, 16, rate):
        raise ValueError(
            f"{where} has {found[0]} channel(s) of {found[1]} bits at {found[2]} Hz; 1 channel of 16 bits at {rate} Hz is "
            "wanted. Convert it first, for instance with sox or ffmpeg."
        )
    if not promised or len(samples) != 2 * promised:
        raise ValueError(
            f"{where} holds {len(samples) // 2} samples and promises {promised}: it is empty or cut off."
        )
    return np.frombuffer(samples, "<i2").astype(np.int16)
