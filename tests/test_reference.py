"""Laws of the kept reference: it is small, and holds what the run found."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import __main__ as experiments
from research import runs


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 0


def finished(folder, rows=1):
    table = runs.Table(
        "Costs", ("regime", "passes"), (("full batch", 1 / 3), ("stochastic", None))
    )
    numbers = {
        "ratio": 0.97,
        "ratios": [0.5, 2.0],
        "table": {"a": 1},
        "first_in_seconds": "full batch",
    }
    arrays = {
        f"w/r/{i}/{name}": np.arange(i + 3.0)
        for i in range(rows)
        for name in ("gaps", "passes")
    }
    arrays |= {
        "w/r/0/seconds": np.arange(rows),
        "compile_seconds": np.arange(2.0),
    }  # Have no hash.
    result = runs.Result("Full batch.", (table,), arrays, numbers)
    return runs.finish(runs.open_run("toy", Config(), folder), result).path


def test_reference_holds_answer_table_numbers_and_hashes(tmp_path):
    reference = json.loads(
        runs.keep(finished(tmp_path / "results"), tmp_path).read_text()
    )
    assert reference["answer"] == "Full batch."
    assert reference["table"]["rows"] == [["full batch", 0.3333], ["stochastic", None]]
    assert reference["numbers"] == {
        "ratio": 0.97,
        "ratios": [0.5, 2.0],
        "first_in_seconds": "full batch",
    }
    assert reference["hashes"] == {
        "w/r/0": runs.hash_arrays(np.arange(3.0), np.arange(3.0))[:16]
    }
    assert reference["manifest"]["environment"]["versions"]["jax"]


def test_reference_that_is_too_large_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="at most 20,000"):
        runs.keep(finished(tmp_path / "results", rows=1000), tmp_path)
    assert not (tmp_path / "toy.json").exists()


def test_keep_without_a_run_folder_says_what_it_takes(capsys, tmp_path):
    with pytest.raises(SystemExit, match="2"):
        experiments.main(["keep"])
    assert "the following arguments are required: run" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        experiments.main(["keep", str(tmp_path)])
    assert "run folder" in capsys.readouterr().err
