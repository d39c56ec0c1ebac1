"""Do TensorFlow's GradientTape and jax.grad give the same gradient and the same ten
steps of descent?

The network has one hidden layer, tanh and softmax cross-entropy, on 8 by 8 images of
digits. Both frameworks start from the same weights and use the same batches in the same
order. The framework computes the gradient, and the step W - η ∂f/∂W is written by hand.
The baseline is a NumPy program with a gradient by hand. Equality is tested in float64.
Seconds are measured in float32, for a narrow and for a wide hidden layer. The programs
are timed in alternation, in one run.

    python experiments/tensorflow_side_by_side.py            # half a minute

TensorFlow is optional. If it is missing, JAX is compared with its recorded results
(tensorflow_side_by_side.json, beside this file), and the answer says so. If TensorFlow
is installed, the following command writes this file. Run it in the top folder of the
repository:

    python -c "import experiments.tensorflow_side_by_side as e; e.record()"

Expected numbers (`EXPECTED`): the largest difference between the two frameworks, in the
first gradient and in the params after ten steps, divided by the largest entry, in units
of ε = 2.2e-16; and the loss in the tenth step.
"""

import dataclasses
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import research

EXPECTED = {
    "gradient_difference": (0.0, 64.0),
    "params_difference": (0.0, 64.0),
    "last_loss": (1.5, 2.2),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    wide: int = 512
    """Hidden units of the wide network, which is only timed."""
    repeats: int = 41
    """Number of times that each program is timed, in turns with the others."""


FULL = Config(repeats=401)
FAST = Config(wide=16, repeats=3)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl

from research.cli.progress import OnProgress
from research.types import Checkpoints

FILE = Path(__file__).with_suffix(".json")
STEPS, BATCH, RATE = 10, 64, 0.5
# Hidden units of the compared network: few enough to store its numbers.
NARROW = 8
# Without TensorFlow, its recorded results are used.
VARIES = {"installed": None}
BOUND = 64  # In ε of the largest entry; smaller differences are rounding.
NUMPY, TENSORFLOW, EAGER, JAX = (
    "NumPy, by hand",
    "TensorFlow, GradientTape",
    "TensorFlow, not compiled",
    "JAX, jax.grad",
)


def in_numpy(params: Sequence[Any], rate: float):
    """Return a pair (step, read) for descent in NumPy with a gradient by hand.

    `step` takes a batch and returns loss and gradient. `read` returns the params.
    """
    w1, b1, w2, b2 = params = [p.copy() for p in params]

    def step(x: Any, y: Any):
        h = np.tanh(x @ w1 + b1)
        z = h @ w2 + b2
        log_p = z - z.max(axis=1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
        rows = np.arange(len(y))
        delta2 = np.exp(log_p)
        delta2[rows, y] -= 1
        delta2 /= len(y)
        delta1 = (delta2 @ w2.T) * (1 - h**2)
        grads = [x.T @ delta1, delta1.sum(axis=0), h.T @ delta2, delta2.sum(axis=0)]
        for p, g in zip(params, grads, strict=True):
            p -= rate * g
        return -np.mean(log_p[rows, y]), grads

    return step, lambda: params


def in_tensorflow(params: Sequence[Any], rate: float, compiled: bool = True):
    """Return the same pair as `in_numpy`, with TensorFlow's gradient."""
    import tensorflow as tf  # pyright: ignore

    w1, b1, w2, b2 = variables = [tf.Variable(p) for p in params]

    def step(x: Any, y: Any):
        with tf.GradientTape() as tape:
            z = tf.tanh(x @ w1 + b1) @ w2 + b2
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, z)
            loss = tf.reduce_mean(losses)
        grads = tape.gradient(loss, variables)
        for variable, g in zip(variables, grads, strict=True):
            variable.assign_sub(rate * g)  # pyright: ignore
        return loss, grads

    step = tf.function(step) if compiled else step
    return step, lambda: variables


def in_jax(params: Sequence[Any], rate: float):
    """Return the same pair as `in_numpy`, with JAX's gradient."""

    def loss(params: Sequence[Any], x: Any, y: Any):
        w1, b1, w2, b2 = params
        z = jnp.tanh(x @ w1 + b1[None]) @ w2 + b2[None]
        log_p = jax.nn.log_softmax(z)
        return -jnp.mean(log_p[jnp.arange(len(y)), y])

    @jax.jit
    def update(params: Sequence[Any], x: Any, y: Any):
        value, grads = jax.value_and_grad(loss)(params, x, y)
        params = [p - rate * g for p, g in zip(params, grads, strict=True)]
        return params, (value, grads)

    def step(x: Any, y: Any):
        nonlocal params
        params, found = update(params, x, y)
        return found

    return step, lambda: params


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Compare the steps, then time them."""
    del checkpoints  # The experiment takes half a minute, so no checkpoint is saved.
    for field in ("wide", "repeats"):
        if getattr(config, field) < 1:
            raise ValueError(
                f"{field} must be a positive integer; got "
                f"{field}={getattr(config, field)}."
            )
    installed = importlib.util.find_spec("tensorflow") is not None
    pieces = ("ten steps", "narrow", "wide")
    report = lambda done: (
        on_progress and on_progress(done, 3, pieces[done] if done < 3 else "done")
    )
    report(0)
    found = {
        NUMPY: descend(in_numpy),
        TENSORFLOW: tensorflow_steps() if installed else recorded(),
        JAX: descend(in_jax),
    }
    seconds = {}
    for done, width in enumerate((NARROW, config.wide), start=1):
        report(done)
        seconds["narrow" if done == 1 else "wide"] = timed(
            width, config.repeats, installed
        )
    report(3)
    numbers = facts(found, seconds, config, installed)
    arrays = {f"losses/{way}": steps["losses"] for way, steps in found.items()}
    return research.runs.Findings(arrays, numbers)


def problem(width: int, dtype: str = "float64"):
    """Return (params, batches).

    The weights have four decimals, so that they are the same in every framework. The
    pixels of the images are multiples of 1/16 in [0, 1].
    """
    digits, random = research.datasets.load("digits"), np.random.default_rng(0)
    order = random.permutation(len(digits.y))[: STEPS * BATCH].reshape(STEPS, BATCH)
    shapes = ((64, width), (width,), (width, 10), (10,))
    scales = (1 / 8, 0.1, 1 / np.sqrt(width), 0.1)
    params = [
        np.round(s * random.normal(size=shape), 4).astype(dtype)
        for s, shape in zip(scales, shapes, strict=True)
    ]
    return params, [
        ((digits.x[rows] / 16).astype(dtype), digits.y[rows].astype(np.int32))
        for rows in order
    ]


def descend(make: Callable):
    """Run ten steps of the narrow network.

    Returns:
      The losses, shape (10,), the flattened first gradient, and the flattened last
      params.
    """
    params, batches = problem(NARROW)
    step, read = make(params, RATE)
    steps = [step(x, y) for x, y in batches]
    flat = lambda parts: np.concatenate([np.ravel(np.asarray(part)) for part in parts])
    return {
        "losses": np.array([float(loss) for loss, _ in steps]),
        "gradient": flat(steps[0][1]),
        "params": flat(read()),
    }


def tensorflow_steps():
    """Run TensorFlow's ten steps with as many threads as JAX has."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf  # pyright: ignore

    threads = int(os.environ.get("NPROC", "2"))
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    return descend(in_tensorflow) | {"version": tf.__version__}


def recorded():
    """Read the results of TensorFlow from FILE."""
    saved = research.reading.parse_json(FILE.read_bytes())
    return {
        key: value if key == "version" else np.array(value)
        for key, value in saved.items()
    }


def record():
    """Write FILE with the results of the installed TensorFlow."""
    research.backend.configure(x64=True)
    found = {
        key: value if key == "version" else value.tolist()
        for key, value in tensorflow_steps().items()
    }
    FILE.write_text(json.dumps(found, indent=0) + "\n", encoding="utf-8")


def timed(width: int, repeats: int, installed: bool):
    """Return the seconds of a float32 step in each way, by name, shape (repeats,)."""
    params, ((x, y), *_) = problem(width, "float32")
    makers = {NUMPY: in_numpy, JAX: in_jax}
    if installed:
        import tensorflow as tf  # pyright: ignore

        makers |= {
            TENSORFLOW: in_tensorflow,
            EAGER: lambda *arguments: in_tensorflow(*arguments, compiled=False),
        }
    calls = []
    for way, make in makers.items():
        step, _ = make(jax.device_put(params) if way == JAX else params, 1e-3)
        if way in (TENSORFLOW, EAGER):
            batch = (tf.constant(x), tf.constant(y))
            calls.append(
                lambda step=step, batch=batch: step(*batch)[0].numpy()
            )  # Waits for the result.
        else:
            batch = jax.device_put((x, y)) if way == JAX else (x, y)
            calls.append(lambda step=step, batch=batch: step(*batch))
    with threadpoolctl.threadpool_limits(
        1
    ):  # For NumPy: on busy cores, two threads that wait for each other are slow.
        return dict(
            zip(
                makers,
                research.tuning.interleaved_timing(calls, repeats).T,
                strict=True,
            )
        )


def facts(
    found: dict[str, Any], seconds: dict[str, Any], config: Config, installed: bool
):
    """Return the differences of each way from JAX, and its seconds relative to JAX.

    A difference is divided by the largest entry, and is in units of ε.
    """
    exact, eps = found[JAX], float(np.finfo(float).eps)

    def off(way: str, key: str):
        return float(
            np.abs(found[way][key] - exact[key]).max() / np.abs(exact[key]).max() / eps
        )

    differences = {
        way: {key: off(way, key) for key in ("losses", "gradient", "params")}
        for way in found
    }
    times = {}
    for net, by_way in seconds.items():
        for way in by_way:
            ratio = research.statistics.median_interval(by_way[way] / by_way[JAX])
            times[f"{net}/{way}"] = [float(np.median(by_way[way])), *map(float, ratio)]
    return {
        "installed": installed,
        "version": found[TENSORFLOW]["version"],
        "equal": all(size <= BOUND for size in differences[TENSORFLOW].values()),
        "differences": differences,
        "gradient_difference": differences[TENSORFLOW]["gradient"],
        "params_difference": differences[TENSORFLOW]["params"],
        "gradient_bits_equal": float(
            np.mean(found[TENSORFLOW]["gradient"] == exact["gradient"])
        ),
        "first_loss": float(exact["losses"][0]),
        "last_loss": float(exact["losses"][-1]),
        "seconds": times,
        "widths": {"narrow": NARROW, "wide": config.wide},
        "config": dataclasses.asdict(config),
        "code": {TENSORFLOW: source(in_tensorflow), JAX: source(in_jax)},
    }


def source(function: Callable):
    """Return the source code of a function without its one-line docstring."""
    lines = inspect.getsource(function).splitlines()
    return "\n".join([lines[0], *lines[2:]]).replace("  # pyright: ignore", "")
