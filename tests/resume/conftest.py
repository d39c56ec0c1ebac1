"""The small experiment as a module, and a way to run it in this process that compiles
once.
"""

import functools
import sys
from pathlib import Path

import pytest

sys.path.insert(
    0, str(Path(__file__).parent)
)  # With importlib, pytest puts no folder on the path.

import small

compiled = functools.cache(small.compiled)


@pytest.fixture
def carry_out(monkeypatch):
    """(config, results) -> run folder, as the command line does it; every checkpoint is
    due at once.
    """
    from research import runs
    from research.runs import checkpoints, folder

    monkeypatch.setattr(checkpoints, "LARGEST_SHARE", float("inf"))
    monkeypatch.setattr(
        runs,
        "checkpoints_in",
        functools.partial(checkpoints.checkpoints_in, seconds_between=0.0),
    )
    monkeypatch.setattr(small, "compiled", compiled)
    same = runs.environment(width=1)  # Asked once: git takes longer than the whole run.
    monkeypatch.setattr(folder, "environment", lambda width, code: same)
    return small.carry_out
