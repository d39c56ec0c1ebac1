"""Does a run that is killed end with the same bits?

An experiment with all that can be interrupted and nothing more: two pieces, two calls
  of two blocks each, many chunks.

    python tests/resume/small.py

The number to expect (`EXPECTED`): the pieces.
"""

import dataclasses
import functools
import math
import sys
from pathlib import Path

import numpy as np

import research

EXPECTED = {"pieces": 2}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    cells: int = 3
    """Trainings in each piece."""
    epochs: int = 20
    """Length of each training."""
    chunk: int = 2
    """Epochs between two checkpoints."""
    width: int = 2
    """Lanes in a block."""
    examples: int = 96
    """Of each data set."""
    pieces: tuple[str, ...] = ("linear", "mlp")
    """Which to run."""


FULL = Config(epochs=300)


def run(config, on_progress=None, checkpoints=None):
    """Trains the pieces, each remembered once it is whole."""
    arrays, hashes = {}, {}
    for done, piece in enumerate(config.pieces):
        on_chunk = functools.partial(
            _tell, on_progress or _silent, done, len(config.pieces), piece
        )
        compute = functools.partial(train, piece, config, on_chunk)
        saved = research.runs.remembered(
            checkpoints or research.types.no_checkpoints, piece, compute
        )
        arrays |= {f"{piece}/{name}": array for name, array in saved.arrays.items()}
        hashes[piece] = saved.values
    numbers = {"pieces": len(config.pieces), "hashes": hashes}
    table = research.runs.Table("Cells", ("piece", "cell", "hash"), rows(hashes))
    return research.runs.Result(f"{len(hashes)} pieces.", (table,), arrays, numbers)


def rows(hashes):
    """One for each cell."""
    return tuple(
        (piece, i, digest)
        for piece, cells in hashes.items()
        for i, digest in enumerate(cells)
    )


def train(piece, config, on_chunk, checkpoints):
    """Everything that the cells of a piece leave, and the hash of each."""
    import jax

    program = compiled(piece, config)
    cells = {
        "seed": np.arange(config.cells),
        "learning_rate": np.geomspace(0.003, 0.03, config.cells),
    }
    # Two calls, as choosing a rate and then using it would make.
    first, second = (
        research.descent.sweep(
            program, dict(cells, seed=cells["seed"] + start), on_chunk, checkpoints
        )
        for start in (0, 100)
    )
    leaves = jax.tree.leaves(
        [(t.params, t.values, t.info, t.first_bad_step) for t in (first, second)]
    )
    arrays = {str(i): leaf for i, leaf in enumerate(leaves)}
    hashes = [
        research.runs.hash_arrays(*(leaf[i] for leaf in leaves))
        for i in range(config.cells)
    ]
    return research.types.Saved(arrays, hashes)


def compiled(piece, config):
    """The program of a piece: a model fed by a sampler under a rule of its own."""
    n, rules = config.examples, research.update_rules
    rule, sampler = {
        "linear": (rules.heavy_ball, research.samplers.full_batch(n)),
        "mlp": (rules.adam, research.samplers.minibatch(n, 32)),
        "logistic": (rules.gradient_descent, research.samplers.minibatch(n, 32)),
    }[piece]
    return research.descent.compile_sweep(
        workload(piece, n),
        rule,
        sampler,
        config.epochs,
        chunk=config.chunk,
        width=config.width,
    )


def workload(piece, n):
    """Random data, and the piece's model of it."""
    import jax
    import jax.numpy as jnp

    models, losses = research.models, research.losses
    random = np.random.default_rng(0)
    x = random.normal(size=(n, 8))
    hidden = models.softmax(8, 16, scale=0.3)
    outer, loss = {
        "linear": (models.linear(8), losses.squared_error),
        "mlp": (models.softmax(16, 3, scale=0.3), losses.softmax_cross_entropy),
        "logistic": (models.logistic(8), losses.logistic),
    }[piece]
    y = (
        x @ random.normal(size=8)
        if piece == "linear"
        else random.integers(0, 3 if piece == "mlp" else 2, size=n)
    )

    def init(key):
        keys = [jax.random.fold_in(key, i) for i in range(2)]
        return {"outer": outer.init(keys[0])} | (
            {"hidden": hidden.init(keys[1])} if piece == "mlp" else {}
        )

    def objective(params, batch):
        inner = (
            jnp.tanh(hidden.apply(params["hidden"], batch.x))
            if piece == "mlp"
            else batch.x
        )
        return jnp.mean(jax.vmap(loss)(outer.apply(params["outer"], inner), batch.y))

    train = research.types.Batch(jnp.asarray(x), jnp.asarray(y))
    return research.types.Workload(
        piece, train, None, None, init, objective, None, "", None, None
    )


def save_at_every_chance():
    """Makes every checkpoint due at once, so that there are many moments to be killed
    at.
    """
    from research.runs import checkpoints

    checkpoints.LARGEST_SHARE = math.inf
    research.runs.checkpoints_in = functools.partial(
        checkpoints.checkpoints_in, seconds_between=0.0
    )


def carry_out(config, results, quiet=True, devices=1):
    """What the command line does, without drawing: the run folder of a finished run."""
    from research import backend, cli

    if devices > 1:
        backend.configure(devices=devices)
        backend.configure = lambda **values: None  # Else it would be one again.
    options = cli.flags.Options(results=Path(results), quiet=quiet)
    run, _ = cli.carry_out(sys.modules[__name__], cli.flags.Command(config, options))
    return run.path


def draw(result):
    """A dot for each piece."""
    figure, axes = research.figures.new_figure(height=1.0, width=2.0)
    axes[0, 0].plot([result.numbers["pieces"]], [0.0], "o")
    return {"pieces": research.figures.Picture("Pieces", result.answer, figure)}


def _tell(on_progress, done, total, piece, progress):
    on_progress(done + 0.5 * min(progress.share, 1.0), total, piece)


def _silent(done, total, message):
    del done, total, message


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
