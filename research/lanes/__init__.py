"""Many trainings at once: cells that share a program run in blocks of fixed width, over the devices there are."""

from research.lanes.program import (
    EPOCHS,
    INIT,
    WIDTH,
    MakeRule,
    Program,
    compile_program,
)
from research.lanes.training import Progress, Trained, train

__all__ = [
    "EPOCHS",
    "INIT",
    "WIDTH",
    "MakeRule",
    "Program",
    "Progress",
    "Trained",
    "compile_program",
    "train",
]
