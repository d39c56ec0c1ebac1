"""The speech front end is what its formula says: by scipy's spectrogram, a filter bank
in loops, Parseval and pure tones.
"""

import math

import numpy as np
import pytest
import scipy.signal

from research.datasets._log_mel import frames, log_mel, mel, mel_weights, power_spectrum

RATE, LENGTH, HOP, SIZE = 8000, 200, 80, 256
NOISE = np.random.default_rng(0).standard_normal(4000)


def by_scipy(wave):
    """Power of the same frames: scipy halves the sides but at the ends, and divides by
    the window's sum, squared.
    """
    window = scipy.signal.get_window("hann", LENGTH)
    _, _, found = scipy.signal.spectrogram(
        wave,
        RATE,
        window,
        LENGTH,
        LENGTH - HOP,
        SIZE,
        detrend=False,
        scaling="spectrum",
        mode="psd",
    )
    sides = np.full(SIZE // 2 + 1, 2.0)
    sides[[0, -1]] = 1.0
    return found.T * window.sum() ** 2 / sides


def weights_by_hand(num_mels, lowest, highest):
    def scale(frequency):
        return 1127.0104 * math.log(1 + frequency / 700)  # 2595 / ln 10.

    step = (scale(highest) - scale(lowest)) / (num_mels + 1)
    found = np.zeros((SIZE // 2 + 1, num_mels))
    for bin in range(SIZE // 2 + 1):
        for band in range(num_mels):
            left = scale(lowest) + band * step
            at = scale(bin * RATE / SIZE)
            found[bin, band] = max(
                0.0, min((at - left) / step, (left + 2 * step - at) / step)
            )
    return found


def test_power_equals_scipys_spectrogram():
    np.testing.assert_allclose(
        power_spectrum(frames(NOISE, LENGTH, HOP)),
        by_scipy(NOISE),
        rtol=1e-11,
        atol=1e-11,
    )


def test_power_obeys_parseval():
    framed = frames(NOISE, LENGTH, HOP)
    power = power_spectrum(framed)
    sides = np.r_[1.0, np.full(SIZE // 2 - 1, 2.0), 1.0]
    window = scipy.signal.get_window("hann", LENGTH)
    np.testing.assert_allclose(
        power @ sides, SIZE * ((framed * window) ** 2).sum(axis=1), rtol=1e-12
    )


def test_weights_equal_the_triangles_in_loops():
    np.testing.assert_allclose(
        mel_weights(RATE, SIZE, 20, 20.0, 4000.0),
        weights_by_hand(20, 20.0, 4000.0),
        atol=1e-5,
    )


def test_weights_sum_to_one_between_the_outer_peaks():
    num_mels = 40
    edges = np.linspace(mel(20.0), mel(4000.0), num_mels + 2)
    at = mel(np.arange(SIZE // 2 + 1) * RATE / SIZE)
    inside = (at >= edges[1]) & (at <= edges[-2])
    np.testing.assert_allclose(
        mel_weights(RATE, SIZE, num_mels, 20.0, 4000.0)[inside].sum(axis=1),
        1.0,
        atol=1e-12,
    )


def test_log_mel_is_the_logarithm_of_both():
    expected = np.log(by_scipy(NOISE) @ weights_by_hand(40, 20.0, 4000.0) + 1e-10)
    np.testing.assert_allclose(
        log_mel(NOISE, RATE), expected, atol=1e-4
    )  # 2595 / ln 10 has been rounded by hand.


@pytest.mark.parametrize("rate", [8000, 16000])
def test_pure_tone_is_loudest_in_the_band_that_peaks_there(rate):
    num_mels = 20
    peaks = 700 * (
        10 ** (np.linspace(mel(20.0), mel(rate / 2), num_mels + 2)[1:-1] / 2595) - 1
    )
    for band, frequency in enumerate(peaks):
        tone = np.sin(2 * np.pi * frequency * np.arange(rate // 4) / rate)
        assert (log_mel(tone, rate, num_mels=num_mels).argmax(axis=1) == band).all()


def test_twice_as_loud_is_log_4_more_and_int16_is_its_share_of_full_scale():
    wave = (NOISE * 3000).astype(np.int16)
    one = log_mel(wave, RATE)
    np.testing.assert_allclose(log_mel(wave / 16384, RATE), one + np.log(4), atol=1e-5)
    np.testing.assert_array_equal(log_mel(wave / 32768, RATE), one)
    assert one.dtype == np.float32


def test_frames_are_as_many_as_fit_and_at_least_one():
    for num_samples, expected in ((1, 1), (200, 1), (279, 1), (280, 2), (4000, 48)):
        assert log_mel(np.ones(num_samples), RATE).shape == (expected, 40)
    np.testing.assert_allclose(log_mel(np.zeros(400), RATE), np.log(1e-10), rtol=1e-6)


@pytest.mark.parametrize(
    ("wave", "options", "words"),
    [
        (np.ones((2, 100)), {}, r"one row of samples; got shape \(2, 100\)"),
        (np.ones(0), {}, "one row of samples"),
        (np.ones(400), {"num_mels": 0}, "num_mels must be at least 1.*num_mels=0"),
        (np.ones(400), {"highest": 5000.0}, "highest=5000.0, rate=8000"),
        (
            np.ones(400),
            {"num_mels": 100},
            "num_mels=100 bands are too many for a spectrum of 256 samples",
        ),
        (np.ones(400), {"hop_seconds": 0.0}, "hop_seconds=0.0"),
    ],
)
def test_bad_input_is_named(wave, options, words):
    with pytest.raises(ValueError, match=words):
        log_mel(wave, RATE, **options)


def test_integers_that_are_no_16_bit_samples_are_refused():
    with pytest.raises(TypeError, match=r"int16 or floating; got dtype int64"):
        log_mel(np.ones(400, np.int64), RATE)
