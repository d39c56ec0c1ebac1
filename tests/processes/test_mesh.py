"""Laws of meshes: sums and their derivatives over devices, the collectives of a step,
what is refused; and a training has the bits of its devices, whatever their processes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TOP = HERE.parents[1]
# Sums of parameters, and of the loss with the gradients of leaves that no axis splits.
# XLA joins the sums of the fast mode that do not depend on one another.
WANTED = {
    "data parallel": {"all-gather": 1},
    "data parallel, fast": {"all-reduce": 1},
    # Params are gathered, gradients exchanged and added; then sums of two kinds: the
    # loss with whole leaves, and the norms.
    "fully sharded": {"all-gather": 3, "all-to-all": 1},
    "fully sharded, fast": {"all-gather": 1, "all-reduce": 1, "reduce-scatter": 1},
    # Params and state are gathered, and the gradients are summed.
    "fully sharded, a rule on whole arrays": {"all-gather": 2},
}


def python(*words, **variables):
    path = os.pathsep.join([str(TOP), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        env=os.environ | {"PYTHONPATH": path} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def printed(process):
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    return out


@pytest.fixture(scope="module")
def found():
    return json.loads(printed(python(HERE / "mesh_cases.py")))


def test_a_step_has_the_collectives_of_its_mode(found):
    assert found["collectives"] == WANTED


def test_means_over_devices_have_the_derivatives_of_the_whole_mean(found):
    assert len(found["derivatives"]) == 3
    assert max(found["derivatives"]) < 1e-14


def test_exact_sums_add_in_the_order_of_the_devices(found):
    assert found["in order"] == {"small": True, "large": True, "another order": False}


def test_scattered_sums_are_gathered_without_loss(found):
    assert found["parts"] == [True] * 5


def test_meshes_that_do_not_fit_are_refused(found):
    words = found["refused"]
    for text, part in zip(
        words,
        (
            "num_devices=9, but JAX has only 8",
            "num_devices must be a positive integer; got num_devices=0",
            "got batch_size=6, and the mesh has 8 devices",
            "devices and mesh both name the devices; got devices=2",
            "mesh must be a Mesh; got mesh=8",
        ),
        strict=True,
    ):
        assert part in text
