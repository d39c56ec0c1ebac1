"""Gradient descent: single steps, runs, training, sweeps and minimisation."""

from research.descent._implicit_minimum import ImplicitMinimum as ImplicitMinimum
from research.descent._implicit_minimum import (
    SingularHessianError as SingularHessianError,
)
from research.descent._implicit_minimum import implicit_minimum as implicit_minimum
from research.descent._mesh import Mesh as Mesh
from research.descent._mesh import mesh as mesh
from research.descent._mesh_cost import bytes_per_step as bytes_per_step
from research.descent._minimise import Minimum as Minimum
from research.descent._minimise import minimise as minimise
from research.descent._run import EpochInfo as EpochInfo
from research.descent._run import epoch_batches as epoch_batches
from research.descent._run import evaluation_points as evaluation_points
from research.descent._run import run as run
from research.descent._step import BatchIndices as BatchIndices
from research.descent._step import Descent as Descent
from research.descent._step import Info as Info
from research.descent._step import State as State
from research.descent._step import build as build
from research.descent._step import check_dataset as check_dataset
from research.descent._step import gather as gather
from research.descent._sweep import SweepProgress as SweepProgress
from research.descent._sweep import SweepResult as SweepResult
from research.descent._sweep import sweep as sweep
from research.descent._sweep_program import EPOCHS as EPOCHS
from research.descent._sweep_program import INIT as INIT
from research.descent._sweep_program import WIDTH as WIDTH
from research.descent._sweep_program import MakeRule as MakeRule
from research.descent._sweep_program import SweepProgram as SweepProgram
from research.descent._sweep_program import compile_sweep as compile_sweep
from research.descent._train import train as train
from research.descent._train_progress import TrainResult as TrainResult
from research.types import Outcome as Outcome
