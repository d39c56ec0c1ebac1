"""How much memory does the gradient of a long loop need, and what does it cost to need
less?

Reverse mode of a plain scan (`jax.lax.scan`) stores what each of its T steps computes.
A checkpointed scan stores only carries (what a step passes to the next), and computes
the steps again. With one level, it stores every carry; with two, the steps are divided
into parts; with three, each part is divided again. With L levels, it stores about L
T^(1/L) carries, and computes each step L + 1 times.

    python experiments/memory_for_time.py            # under a minute

Memory is the temporary memory that XLA allocates for the gradient, in bytes. Seconds
are ratios to the plain scan, measured in turns. If equinox is installed, its
checkpointed scan is measured in the same run.

Expected numbers (`EXPECTED`): the slope of log(bytes) against log(T) over the longest
lengths; for scans with a promised amount of memory, the memory divided by this amount,
at most 1; the number of entries of the values that differ in a bit from those of
`jax.lax.scan`; and the largest relative difference of a gradient.
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import research

EXPECTED = {
    "plain_slope": (0.9, 1.05),
    "two_levels_slope": (0.3, 0.6),
    "three_levels_slope": (0.1, 0.45),
    "largest_share_of_promise": (0.0, 1.0),
    "bits_that_differ": (0, 0),
    "gradient_difference": (0.0, 1e-12),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    width: int = 1024
    """Size of the loop's carry, the vector that each step passes to the next."""
    longest: int = 4096
    """Largest number of steps, a power of 4."""
    timed: int = 1024
    """Number of steps of the loop that is timed."""
    repeats: int = 15
    """Number of times that each gradient is timed."""
    seed: int = 0
    """Seed of the inputs."""


FULL = Config(width=4096, longest=16384, timed=4096, repeats=31)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import numpy as np

from experiments._peers import peer
from experiments._timing import seconds_and_ratios
from research.checks import check_count
from research.cli.progress import OnProgress
from research.types import Checkpoints

PLAIN, EQUINOX = "plain scan", "equinox"
OURS = ("one level", "two levels", "three levels")

# These numbers depend on what is installed. `reproduce` does not judge them.
VARIES = {"peer_installed": None, "peer_bytes": None}


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Measure the memory at every length, the promises, and the seconds."""
    del checkpoints  # The experiment takes a minute, so no checkpoint is saved.
    _check(config)
    lengths = 4 ** np.arange(2, round(np.log(config.longest) / np.log(4)) + 1)
    installed = peer("equinox.internal") is not None
    ways = (PLAIN, *OURS, *([EQUINOX] if installed else []))
    report = lambda done, what: on_progress and on_progress(done, len(ways) + 2, what)
    bytes_of = {}
    for done, way in enumerate(ways):
        report(done, way)
        bytes_of[way] = [_bytes(_loss(way), config, int(t)) for t in lengths]
    report(len(ways), "promises")
    promises = _promises(config)
    report(len(ways) + 1, "seconds")
    numbers = {
        "lengths": [int(length) for length in lengths],
        "bytes": {way: found for way, found in bytes_of.items() if way != EQUINOX},
        "peer_installed": installed,
        "peer_bytes": bytes_of[EQUINOX][-1] if installed else None,
        "seconds": _seconds(ways, config),
        "promises": promises,
        "largest_share_of_promise": max(p["bytes"] / p["promise"] for p in promises),
        **{
            f"{way.replace(' ', '_').removesuffix('_scan')}_slope": _slope(
                lengths, bytes_of[way]
            )
            for way in (PLAIN, *OURS)
        },
        **_differences(config),
    }
    report(len(ways) + 2, "done")
    arrays = {"lengths": lengths} | {
        f"bytes_in_seconds_run/{way}" if way == EQUINOX else f"bytes/{way}": np.array(
            found
        )
        for way, found in bytes_of.items()
    }
    return research.runs.Findings(arrays, numbers)


def _check(config: Config) -> None:
    longest = config.longest
    if longest < 256 or 4 ** round(np.log(longest) / np.log(4)) != longest:
        raise ValueError(
            "longest must be a power of 4 of at least 256, such as 1024 or 4096; got "
            f"longest={longest}."
        )
    # With a smaller carry, the memory that does not depend on the carry would exceed
    # the promise.
    width = max(64, round(np.sqrt(longest) / 2))
    for field, least in (("width", width), ("timed", 2), ("repeats", 1)):
        check_count(field, getattr(config, field), least=least)


def step(carry: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:
    """Return the next carry: sines of sines, shifted by the input x."""
    inner = jnp.sin(3 * jnp.sin(carry + x))
    return inner + 0.1 * jnp.roll(carry, 1), None


def _scan(way: str) -> Callable[..., Any]:
    """Return a function (f, init, xs) -> (last carry, ys)."""
    if way == PLAIN:
        return jax.lax.scan
    if way == EQUINOX:
        inside = peer("equinox.internal")
        return lambda f, init, xs: inside.scan(f, init, xs, kind="checkpointed")
    levels = OURS.index(way) + 1
    return lambda f, init, xs: research.derivatives.checkpoint_scan(
        f, init, xs, levels=levels
    )


def _loss(way: str) -> Callable[..., Any]:
    scan = _scan(way)
    return lambda init, xs: jnp.sum(scan(step, init, xs)[0] ** 2)


def _inputs(config: Config, length: int) -> tuple[jax.Array, jax.Array]:
    random = np.random.default_rng(config.seed)
    init = random.normal(size=config.width)
    return jnp.asarray(init), jnp.asarray(random.normal(size=length))


def _bytes(loss: Callable[..., Any], config: Config, length: int) -> int:
    """Return the temporary memory of the gradient with respect to the first carry."""
    found = research.derivatives.cost(
        jax.grad(loss), *_inputs(config, length), seconds=0
    )
    return int(found.temporary_bytes)


def _slope(lengths: np.ndarray, found: list[int]) -> float:
    """Return the slope of log(bytes) against log(length) over the last factor of 16."""
    rise = np.log(found[-1] / found[-3])
    return float(rise / np.log(lengths[-1] / lengths[-3]))


def _promises(config: Config) -> list[dict[str, Any]]:
    """Give scans several limits of memory, and measure what the gradient then needs.

    Each limit is 1.5 times the memory of the carries that one, two or three levels
    store.
    """
    carry, rows = 8 * config.width, []
    for levels in range(1, len(OURS) + 1):
        carries = levels * config.longest ** (1 / levels) + 5
        promise = int(1.5 * carries * carry)
        loss = lambda init, xs, promise=promise: jnp.sum(
            research.derivatives.checkpoint_scan(step, init, xs, memory_bytes=promise)[
                0
            ]
            ** 2
        )
        found = _bytes(loss, config, config.longest)
        rows.append({"promise": promise, "bytes": found})
    return rows


def _seconds(ways: tuple[str, ...], config: Config) -> dict[str, list[float]]:
    """Time the gradients in turns; see `seconds_and_ratios`."""
    inputs = _inputs(config, config.timed)
    gradients = {way: jax.jit(jax.grad(_loss(way))) for way in ways}
    calls = {way: lambda f=f: f(*inputs) for way, f in gradients.items()}
    return seconds_and_ratios(calls, config.repeats)


def _differences(config: Config) -> dict[str, Any]:
    """Compare values and gradients of each number of levels with the plain scan."""
    # 240 is not a square, so there are parts and a remainder.
    length = min(config.timed, 240)
    inputs = _inputs(config, length)
    gradient = jax.jit(jax.grad(_loss(PLAIN)))(*inputs)
    plain = jax.jit(lambda *a: jax.lax.scan(step, *a)[0])(*inputs)
    bits, largest = 0, 0.0
    for way in OURS:
        own = jax.jit(lambda *a, way=way: _scan(way)(step, *a)[0])(*inputs)
        bits += int(jnp.sum(own != plain))
        other = jax.jit(jax.grad(_loss(way)))(*inputs)
        apart = jnp.max(jnp.abs(other - gradient)) / jnp.max(jnp.abs(gradient))
        largest = max(largest, float(apart))
    return {"bits_that_differ": bits, "gradient_difference": largest}
