"""Log-mel spectrograms of speech."""

from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Shaped

from research.checks import check_number, check_numbers
from research.sizes import check_most, check_room

# Added to the energy of each band, so that digital silence has a finite logarithm.
FLOOR = 1e-10


def log_mel(
    wave: Shaped[np.ndarray, "t"],
    rate: int,
    *,
    num_mels: int = 40,
    window_seconds: float = 0.025,
    hop_seconds: float = 0.010,
    lowest: float = 20.0,
    highest: float | None = None,
) -> Float32[np.ndarray, "frames num_mels"]:
    """Compute the log-mel spectrogram of a wave.

    The spectrogram shows how the energy of the wave is spread over time and frequency.
    A frame is a short piece of the wave, and a band is an interval of frequencies. The
    entry of frame m and band k is log(Σ_f weights[f, k] P_m(f) + 1e-10). Here log is
    the natural logarithm, and the sum is over the frequencies f of the spectrum. P_m is
    the power spectrum of frame m under a periodic Hann window (`power_spectrum`).
    `mel_weights` computes the weights. There is no pre-emphasis, dithering, centring or
    normalisation. Samples of int16 are divided by 32,768. Floating samples are used
    unchanged.

    Args:
      wave: Samples, int16 or floating, shape (t,) with t >= 1. A wave that is shorter
        than a frame is padded with 0 to the length of a frame.
      rate: Number of samples per second.
      num_mels: Number of bands.
      window_seconds, hop_seconds: Length of a frame, and distance between the starts of
        two consecutive frames, in seconds.
      lowest, highest: Lower edge of the first band and upper edge of the last band, in
        Hz. highest=None means half the rate.
    Returns:
      The spectrogram, float32, shape (frames, num_mels). Let t be the number of samples
      after padding. Then frames = 1 + (t - window) // hop, where window and hop are
      window_seconds and hop_seconds in samples.
    Raises:
      TypeError: wave is neither int16 nor floating.
      ValueError: wave is empty or not one-dimensional, a number is out of range, or a
        band is too narrow to contain a frequency of the spectrum.
    References:
      Davis & Mermelstein (1980), Comparison of parametric representations for
      monosyllabic word recognition, IEEE Transactions on Acoustics, Speech, and Signal
      Processing 28(4). Only the filter bank of this paper is used, without the cosine
      transform.
    Example:
      >>> tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
      >>> spectrogram = log_mel(tone, 8000)
      >>> spectrogram.shape, int(spectrogram[0].argmax()), spectrogram.dtype
      ((98, 40), 18, dtype('float32'))
    """
    check_numbers("wave", wave)
    check_number("rate", rate, positive=True)
    check_number("num_mels", num_mels, integer=True)
    for name, value in (
        ("window_seconds", window_seconds),
        ("hop_seconds", hop_seconds),
    ):
        check_number(name, value, positive=True)
    check_number("lowest", lowest)
    if highest is not None:
        check_number("highest", highest, positive=True)
    wave = np.asarray(wave)
    if wave.ndim != 1 or not wave.size:
        raise ValueError(
            f"wave must be one row of samples; got shape {wave.shape}. Pass one "
            "recording at a time."
        )
    if wave.dtype == np.int16:
        wave = wave / np.float64(32768)
    elif not np.issubdtype(wave.dtype, np.floating):
        raise TypeError(
            f"wave must be int16 or floating; got dtype {wave.dtype}. Scale it to "
            "-1..1 and convert it."
        )
    check_most(1_000_000_000, rate=rate)
    check_most(1_000_000, num_mels=num_mels)
    length, hop = round(window_seconds * rate), round(hop_seconds * rate)
    if length < 2 or hop < 1:
        raise ValueError(
            "window_seconds and hop_seconds must be at least 2 samples and 1 sample "
            f"at rate={rate}; got window_seconds={window_seconds}, "
            f"hop_seconds={hop_seconds}."
        )
    power = power_spectrum(frames(wave.astype(np.float64), length, hop))
    weights = mel_weights(
        rate,
        2 * (power.shape[1] - 1),
        num_mels,
        lowest,
        rate / 2 if highest is None else highest,
    )
    return np.log(power @ weights + FLOOR).astype(np.float32)


def frames(
    wave: Float[np.ndarray, "t"], length: int, hop: int
) -> Float[np.ndarray, "frames length"]:
    """Split a wave into frames of `length` samples that start every `hop` samples.

    Samples at the end that do not fill a frame are dropped.

    Args:
      wave: Samples, shape (t,). A wave that is shorter than a frame is padded with 0 to
        the length of a frame.
      length, hop: Length of a frame, and distance between the starts of two consecutive
        frames, in samples. Both are at least 1.
    Returns:
      The frames, shape (1 + (t - length) // hop, length), where t is the number of
      samples after padding.
    Example:
      >>> frames(np.arange(6.0), 4, 2).tolist()
      [[0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0]]
    """
    check_room(f"length={length}", length)
    wave = np.pad(wave, (0, max(length - len(wave), 0)))
    return np.lib.stride_tricks.sliding_window_view(wave, length)[::hop]


def power_spectrum(
    framed: Float[np.ndarray, "frames length"],
) -> Float[np.ndarray, "frames N/2+1"]:
    """Compute the power spectrum of each frame under a periodic Hann window.

    The product of frame and window is padded with 0 to N samples, where N is the
    smallest power of two that is not below the length of the frame. Let X be the
    discrete Fourier transform of this product. The power at the frequency k / N, in
    cycles per sample, is P(k) = |X(k)|² for k = 0, ..., N/2. By Parseval's theorem,
    P(0) + 2 P(1) + ... + 2 P(N/2 - 1) + P(N/2) = N Σ_t (window_t x_t)², where x_t are
    the samples of the frame.

    Args:
      framed: Frames of floating samples, shape (frames, length), length at least 2.
    Returns:
      The power P, shape (frames, N / 2 + 1). Column k has the P(k) of each frame.
    Example:
      >>> power_spectrum(np.ones((1, 4)))[0].round(12).tolist()
      [4.0, 1.0, 0.0]
    """
    length = framed.shape[1]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    spectrum = np.fft.rfft(framed * window, 1 << (length - 1).bit_length())
    return spectrum.real**2 + spectrum.imag**2


def mel(frequency: Any) -> Float[np.ndarray, "..."]:
    """Convert a frequency f to the mel scale: 2595 log10(1 + f / 700).

    This is the mel scale of O'Shaughnessy and HTK. Slaney's mel scale is linear below
    1,000 Hz instead.

    Args:
      frequency: Frequency in Hz, a number or an array.
    References:
      O'Shaughnessy (1987), Speech Communication: Human and Machine. Young et al., The
      HTK Book, "Filterbank analysis".
    Example:
      >>> print(f"{mel(1000.0):.1f}")
      1000.0
    """
    return 2595.0 * np.log10(1.0 + np.asarray(frequency, np.float64) / 700.0)


def mel_weights(
    rate: int, num_samples: int, num_mels: int, lowest: float, highest: float
) -> Float[np.ndarray, "N/2+1 num_mels"]:
    """Compute the weights of triangular bands on the mel scale.

    The bands have num_mels + 2 edges, which are evenly spaced on the mel scale. Edges
    and bands are numbered from 0. The weight of band k rises from 0 at edge k to 1 at
    edge k + 1 and falls to 0 at edge k + 2. The weight is piecewise linear in mel, as
    in HTK. At each frequency between the first and the last peak, the weights of all
    bands sum to 1.

    Args:
      rate: Number of samples per second.
      num_samples: Number N of samples from which the spectrum was computed.
      num_mels: Number of bands, at least 1.
      lowest, highest: Outer edges in Hz, 0 <= lowest < highest <= rate / 2.
    Returns:
      The weights, float64, shape (N / 2 + 1, num_mels).
    Raises:
      ValueError: An argument is out of range, or a band is too narrow to contain a
        frequency of the spectrum.
    """
    check_room(
        f"num_mels={num_mels} and num_samples={num_samples}",
        num_mels + 2,
        num_samples // 2 + 1,
    )
    if num_mels < 1 or not 0 <= lowest < highest <= rate / 2:
        raise ValueError(
            "num_mels must be at least 1, and 0 <= lowest < highest <= rate / 2 must "
            f"hold; got num_mels={num_mels}, lowest={lowest}, highest={highest}, "
            f"rate={rate}."
        )
    edges = np.linspace(mel(lowest), mel(highest), num_mels + 2)
    at = mel(np.arange(num_samples // 2 + 1) * rate / num_samples)[:, None]
    step = edges[1] - edges[0]
    weights = np.maximum(0.0, 1.0 - np.abs(at - edges[1:-1]) / step)
    empty = np.flatnonzero(weights.max(axis=0) == 0.0)
    if empty.size:
        raise ValueError(
            f"num_mels={num_mels} bands are too many for a spectrum of {num_samples} "
            f"samples: band {empty[0]} contains no frequency. Use fewer bands or "
            "longer windows."
        )
    return weights
