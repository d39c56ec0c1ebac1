"""Run folders: a run's result with its config and environment, saved atomically.

If the process is killed or the disk is full, all files that were saved before remain.
"""

from research.files import write_atomically
from research.runs._environment import code_digest, environment
from research.runs.agreement import Agreement, agreement_verdict, hold_against
from research.runs.archive import pack, read_contents
from research.runs.checkpoints import checkpoints_in, remembered
from research.runs.command import command_line, parse_seeds, seeds_text
from research.runs.comparison import Comparison, compare, verdict
from research.runs.folder import (
    Run,
    append_metrics,
    close,
    finish,
    load_result,
    model_file,
    open_run,
    run_id,
)
from research.runs.manifest import read_manifest
from research.runs.reference import keep, read_reference, reference_of
from research.runs.result import (
    Findings,
    Result,
    Table,
    TrainedModel,
    dashed,
    hash_arrays,
)
from research.runs.step_metrics import write_step_metrics, write_tensorboard

__all__ = [
    "Agreement",
    "Comparison",
    "Findings",
    "Result",
    "Run",
    "Table",
    "TrainedModel",
    "agreement_verdict",
    "append_metrics",
    "checkpoints_in",
    "close",
    "code_digest",
    "command_line",
    "compare",
    "dashed",
    "environment",
    "finish",
    "hash_arrays",
    "hold_against",
    "keep",
    "load_result",
    "model_file",
    "open_run",
    "pack",
    "parse_seeds",
    "read_contents",
    "read_manifest",
    "read_reference",
    "reference_of",
    "remembered",
    "run_id",
    "seeds_text",
    "verdict",
    "write_atomically",
    "write_step_metrics",
    "write_tensorboard",
]
