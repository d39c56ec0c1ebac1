"""Run folders: what was found and all that makes it again, saved so that a kill or a full disk loses nothing."""

from research.runs.command import command_line, parse_seeds
from research.runs.environment import environment
from research.runs.files import write_atomically
from research.runs.folder import Run, append_metrics, finish, load_result, open_run, read_manifest, run_id
from research.runs.reference import keep
from research.runs.result import Result, Table, hash_arrays

__all__ = [
    "Result",
    "Run",
    "Table",
    "append_metrics",
    "command_line",
    "environment",
    "finish",
    "hash_arrays",
    "keep",
    "load_result",
    "open_run",
    "parse_seeds",
    "read_manifest",
    "run_id",
    "write_atomically",
]
