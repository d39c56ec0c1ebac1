"""Does a toy add up?

An experiment as small as one can be, for the tests of the command line; `fault` makes
it go wrong.

    python tests/toy.py

The number to expect (`EXPECTED`): the total.
"""

import dataclasses
import importlib
import sys
import time

import research

EXPECTED = {"total": 6}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is added."""

    terms: tuple[int, ...] = (1, 2, 3)
    """The numbers to add."""
    names: tuple[str, ...] = ("one", "two", "three")
    """Their names."""
    learning_rate: float = 0.1
    """Does nothing."""
    label: str | None = None  # Stands above the sum.
    loud: bool = False
    """Whether to shout."""
    fault: str = ""
    """What goes wrong."""


FULL = Config(terms=(10, 20, 30))


def run(config, on_progress=None, checkpoints=None):
    """Adds."""
    del checkpoints  # It is over at once.
    with open("runs.log", "a") as log:
        log.write("ran\n")
    if config.fault == "value":
        raise ValueError("terms must be positive; got -1.\nChoose others.")
    if config.fault == "shape":
        import numpy as np

        np.zeros(2) + np.zeros(3)
    if config.fault == "package":
        importlib.import_module("tensorboard_that_is_not_there.writer")
    if config.fault == "stop":
        on_progress(1, 2, "half")
        raise KeyboardInterrupt
    for done, term in enumerate(config.terms):
        on_progress(done + 1, len(config.terms), f"adding {term}")
        if config.fault == "slow":
            time.sleep(30)
    total = sum(config.terms)
    table = research.runs.Table(
        "Terms",
        ("name", "value"),
        tuple(zip(config.names, config.terms, strict=False)),
        "No term is lost.",
    )
    return research.runs.Result(
        f"It adds up to [{total}].", (table,), {}, {"total": total}
    )


def draw(result):
    """A bar."""
    figure, axes = research.figures.new_figure(height=1.0, width=2.0)
    axes[0, 0].bar([0], [result.numbers["total"]])
    return {"sum": research.figures.Picture("Sum", result.answer, figure)}


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
