"""Laws of meshes: sums and their derivatives over devices, the collectives of a step,
what is refused; and a training has the bits of its devices, whatever their processes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import matrix

CHILDREN_COMPILE_QUICKLY = True  # tests/conftest.py

HERE = Path(__file__).parent
TOP = HERE.parents[1]
# Two devices, of two processes or of one; a rule that moves parts of arrays.
TRAINING = {"devices": 2, "pool": 8, "shard": True}
WANTED = {
    "data parallel": {"all-gather": 1},
    "data parallel, fast": {"all-reduce": 1},
    # Params are gathered, gradients exchanged and added; then sums of two kinds: the
    # loss with the gradients of whole leaves, and the norms.
    "fully sharded": {"all-gather": 3, "all-to-all": 1},
    # XLA joins these sums.
    "fully sharded, fast": {"all-gather": 1, "all-reduce": 1, "reduce-scatter": 1},
    # Params and state are gathered, and the gradients are summed.
    "fully sharded, a rule on whole arrays": {"all-gather": 2},
}


FEW = ("fully sharded, fast",)


def on_eight_devices(options, *names):
    """Return the results of `mesh_cases` in one process."""
    words = ["-m", "tests.processes.mesh_cases", json.dumps(options), *names]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=TOP,
        env=os.environ | {"PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What eight devices find, after two processes with one each were killed."""
    options = TRAINING | {"folder": str(tmp_path_factory.mktemp("kept"))}
    sentences, _ = matrix.killed(matrix.started(2, options | {"kill": [1, 2]}))
    names = ("resumed", "whole", "in order", "refused", *FEW)
    return {"sentences": sentences} | on_eight_devices(options, *names)


@pytest.fixture(scope="module")
def more():
    others = WANTED.keys() - {*FEW}
    return on_eight_devices({}, "derivatives", "parts", *others)


@pytest.mark.on_ci(
    "two processes, a kill and eight devices; nothing shorter shows this"
)
def test_a_training_of_two_killed_processes_continues_in_one_to_the_same_bits(found):
    (resumed, calls), (whole, all_calls) = found["resumed"], found["whole"]
    assert resumed == whole
    assert calls < all_calls


@pytest.mark.on_ci("shares two processes and eight devices with the first test")
def test_processes_say_that_one_of_them_was_killed(found):
    words = " ".join(found["sentences"])
    assert "process 1 was stopped from outside by signal 9 (SIGKILL)" in words
    assert "lost its connection" in words or "was stopped by JAX" in words
    assert "Rerun the same command to resume" in words


def check_collectives(found, names):
    for name in names:
        counted, compiled, computed = found[name]
        assert counted == WANTED[name], name
        assert computed == compiled, name


@pytest.mark.on_ci("shares two processes and eight devices with the first test")
def test_a_step_has_the_collectives_of_its_mode_and_the_bytes_of_their_formula(found):
    check_collectives(found, FEW)


@pytest.mark.thorough("four more programs; .ci/run has one mode")
def test_other_modes_have_their_collectives_and_bytes(more):
    check_collectives(more, WANTED.keys() - {*FEW})


@pytest.mark.thorough("a second process with eight devices")
def test_means_over_devices_have_the_derivatives_of_the_whole_mean(more):
    assert len(more["derivatives"]) == 3
    assert max(more["derivatives"]) < 1e-14


@pytest.mark.on_ci("shares two processes and eight devices with the first test")
def test_exact_sums_add_in_the_order_of_the_devices(found):
    assert found["in order"] == {"small": True, "large": True, "another order": False}


@pytest.mark.thorough("a second process with eight devices")
def test_scattered_sums_are_gathered_without_loss(more):
    assert more["parts"] == [True] * 5


REFUSED = (
    "num_devices=9, but JAX has only 8",
    "num_devices must be a positive integer; got num_devices=0",
    "got batch_size=6, and the mesh has 8 devices",
    "devices and mesh both name the devices; got devices=2",
    "mesh must be a Mesh; got mesh=8",
)


@pytest.mark.on_ci("shares two processes and eight devices with the first test")
def test_meshes_that_do_not_fit_are_refused(found):
    for words, part in zip(found["refused"], REFUSED, strict=True):
        assert part in words
