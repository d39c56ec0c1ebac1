"""The bit contract: what leaves the bits of a cell alone, what does not, and that the
digits we print outlive both.

A cell's hash (see `cells.py`) is compared with that of the whole sweep in this process:
width 16 with the full batch and 8 without, pool of 2, one device.
"""

import functools
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from research import descent, update_rules
from research.cli.console import cell as printed
from tests.bits import cells

FILE = Path(cells.__file__)
TOP = FILE.parent.parent.parent
MLP, MLP_BY_32 = cells.MLP, "mlp, batch 32, adam"
LINEAR, BY_32 = "linear, full batch, gradient descent", "logistic, batch 32, heavy ball"
INSTRUCTIONS = ("AVX2", "AVX", "SSE4_2")
EVERY_MODEL = [name for name in cells.JOBS if "batch 1," not in name]


def run_cells(
    devices: int, pool: int, names: list[str], instructions: str | None = None
) -> dict:
    """What cells.py prints in a process of its own."""
    words = [sys.executable, str(FILE), "--devices", str(devices), "--pool", str(pool)]
    words += [word for name in names for word in ("--job", name)]
    flags = f"--xla_cpu_max_isa={instructions}" if instructions else ""
    path = os.pathsep.join(
        [str(TOP), os.environ.get("PYTHONPATH", "")]
    )  # The tree that is tested, not another one.
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": path}
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


PROCESSES = {
    "again": lambda: run_cells(1, 2, [MLP]),
    "4 devices, pool 4": lambda: run_cells(4, 4, [MLP, MLP_BY_32]),
    "2 devices": lambda: run_cells(2, 2, EVERY_MODEL),
    "2 devices, linear": lambda: run_cells(2, 2, [LINEAR]),
    "1 device, pool 4": lambda: run_cells(1, 4, [MLP]),
    "1 device, pool 1": lambda: run_cells(1, 1, [MLP]),
    **{
        isa: lambda isa=isa: run_cells(1, 2, [LINEAR, MLP], isa) for isa in INSTRUCTIONS
    },
    "SSE4_2, linear": lambda: run_cells(1, 2, [LINEAR], "SSE4_2"),
}


@pytest.fixture(scope="module")
def processes():
    """Name -> what a process prints, started when a test first asks for it."""
    return functools.cache(lambda name: PROCESSES[name]())


@pytest.fixture(scope="module")
def here():
    """Name -> (program, what its sweep gave, hashes), built when first asked for."""
    found = {}

    def ask(name):
        if name not in found:
            program = cells.program(name)
            trained = descent.sweep(program, cells.sweep(name))
            found[name] = program, trained, cells.hashes(trained)
        return found[name]

    return ask


# Rows of the sweep that are trained together, in blocks of eight or sixteen.
COMPANIES = {
    "permuted": np.random.default_rng(0).permutation(cells.NUM_CELLS),
    "a subset": np.arange(3, cells.NUM_CELLS, 2),
    "alone, with seven copies": np.array([17]),
    "a full block": np.arange(8, 16),
    "other neighbours, and twice": np.array([5, 25, 5, 0, 19, 19, 2, 11, 7, 5]),
}


@pytest.mark.thorough(
    "the multilayer perceptron; make test-ci has a process with two devices"
)
def test_another_process_leaves_the_bits_alone(here, processes):
    assert hashes_of(processes("again")) == {MLP: here(MLP)[2]}


@pytest.mark.on_ci("four of five companies", but="twice")
@pytest.mark.thorough("the other sweeps", but="linear")
@pytest.mark.parametrize("company", COMPANIES)
@pytest.mark.parametrize("name", cells.JOBS)
def test_company_leaves_the_bits_alone(here, name, company):
    program, _, hashes = here(name)
    rows = COMPANIES[company]
    trained = descent.sweep(program, cells.take(cells.sweep(name), rows))
    assert cells.hashes(trained) == [hashes[row] for row in rows]


@pytest.mark.thorough("the other sweeps", but="linear")
@pytest.mark.parametrize(
    ("name", "chunk"), [(LINEAR, 2), (BY_32, 3), (MLP, 2), (MLP_BY_32, 3)]
)
def test_chunk_length_leaves_the_bits_alone(here, name, chunk):
    """The sweep itself is trained in one chunk of six epochs."""
    trained = descent.sweep(cells.program(name, chunk=chunk), cells.sweep(name))
    assert cells.hashes(trained) == here(name)[2]


@pytest.mark.on_ci("another process; nothing shorter shows this")
@pytest.mark.thorough("the larger models", but="linear")
@pytest.mark.parametrize("process", ["2 devices, linear", "2 devices"])
def test_two_devices_leave_the_bits_alone(here, processes, process):
    found = hashes_of(processes(process))
    assert LINEAR in found
    assert found == {name: here(name)[2] for name in found}


@pytest.mark.thorough("four devices; make test-ci has two")
def test_four_devices_leave_the_bits_alone(here, processes):
    """Under a pool of four: four devices enlarge a smaller one, which of these only the
    full-batch MLP would notice.
    """
    four, one = (
        hashes_of(processes("4 devices, pool 4")),
        hashes_of(processes("1 device, pool 4")),
    )
    assert four == {MLP: one[MLP], MLP_BY_32: here(MLP_BY_32)[2]}


@pytest.mark.thorough(
    "the multilayer perceptron in three processes, beside the law of four devices"
)
def test_the_pool_enters_the_bits_of_a_full_batch_mlp(here, processes):
    """Three pools, three hashes of every cell: so that the laws of devices do not hold
    for want of a thread.
    """
    pools = [
        hashes_of(processes("1 device, pool 1"))[MLP],
        here(MLP)[2],
        hashes_of(processes("1 device, pool 4"))[MLP],
    ]
    assert all(len(set(hashes)) == 3 for hashes in zip(*pools, strict=True))


@pytest.mark.on_ci("another compilation; nothing shorter shows this")
def test_the_width_enters_the_bits(here):
    """One run at a time differs from the default width. Other widths differ too, on
    some versions and in some models.
    """
    _, default, hashes = here(LINEAR)
    trained = descent.sweep(cells.program(LINEAR, width=1), cells.sweep(LINEAR))
    assert all(a != b for a, b in zip(cells.hashes(trained), hashes, strict=True))
    np.testing.assert_allclose(
        trained.values, default.values, rtol=1e-14
    )  # By rounding, no more.


@pytest.mark.thorough("the multilayer perceptron", but="linear")
@pytest.mark.parametrize("name", [LINEAR, MLP])
def test_one_bit_of_one_parameter_enters_the_hash(here, name):
    _, trained, hashes = here(name)
    leaves, tree = jax.tree.flatten(trained.params)
    for i in range(len(leaves)):
        changed = [leaf.copy() for leaf in leaves]
        changed[i].view(np.uint64)[11, ...].reshape(-1)[-1:] ^= 1
        again = cells.hashes(trained._replace(params=tree.unflatten(changed)))
        assert [a == b for a, b in zip(hashes, again, strict=True)] == [
            row != 11 for row in range(cells.NUM_CELLS)
        ]


@pytest.mark.thorough("older processors, each a process of its own")
@pytest.mark.parametrize("instructions", ["SSE4_2, linear", *INSTRUCTIONS])
def test_printed_digits_outlive_an_older_processor(here, processes, instructions):
    older = processes(instructions)
    for name in older:
        values = here(name)[1].values
        again = np.array(older[name]["values"])
        assert [printed(v) for v in again.ravel()] == [
            printed(v) for v in values.ravel()
        ]
        assert [f"{v:.6e}" for v in again.ravel()] == [
            f"{v:.6e}" for v in values.ravel()
        ]  # Seven, where we print three.
        np.testing.assert_allclose(
            again, values, rtol=1e-14
        )  # Measured after six steps: one unit in the last place.


@pytest.mark.thorough("older processors, each a process of its own")
@pytest.mark.parametrize("instructions", ["SSE4_2, linear", "SSE4_2"])
def test_an_older_processor_enters_the_bits(here, processes, instructions):
    """So the law above is no tautology; jaxlib for x86-64 needs AVX, so that SSE4_2 is
    older wherever it runs.
    """
    if platform.machine() in ("x86_64", "AMD64"):
        older = hashes_of(processes(instructions))
        assert all(
            a != b
            for name in older
            for a, b in zip(older[name], here(name)[2], strict=True)
        )


@pytest.mark.thorough("every sweep; make test sees one bit change one hash")
def test_every_cell_has_a_hash_of_its_own(here):
    hashes = [h for name in cells.JOBS for h in here(name)[2]]
    assert len(set(hashes)) == len(cells.JOBS) * cells.NUM_CELLS


def hashes_of(printed_by: dict) -> dict[str, list[str]]:
    return {name: found["hashes"] for name, found in printed_by.items()}


COMPILED = "/jax/core/compile/backend_compile_duration"
TRACED = "/jax/core/compile/jaxpr_trace_duration"


@pytest.fixture
def events():
    """Names of what JAX reports while a test runs: a trace or a compilation each."""
    seen = []
    listen = lambda event, duration_secs, **kwargs: seen.append(event)
    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    if hasattr(jax.monitoring, "unregister_event_duration_listener"):  # Not in jax 0.7.
        jax.monitoring.unregister_event_duration_listener(listen)
    else:
        jax.monitoring.clear_event_listeners()


@pytest.mark.thorough(
    "counts of compilations; test_a_sweep_traces_nothing (test_sweep.py) has that "
    "other rates and numbers of runs trace no rule again"
)
def test_a_program_key_compiles_once(events):
    """Two computations a program, the orders and the epochs of a chunk; sweeps over
    seeds and rates add none. The initial points and the first state of the rule are
    those of the program before.
    """
    cells.program(BY_32)  # Also whatever JAX compiles for itself at first use.
    traces = []

    def rule(learning_rate):
        traces.append(learning_rate)
        return update_rules.heavy_ball(learning_rate)

    workload = cells.JOBS[BY_32].workload()
    sampler = cells.JOBS[BY_32].sampler(len(workload.train.y))
    events.clear()
    program = descent.compile_sweep(workload, rule, sampler, cells.NUM_EPOCHS, chunk=2)
    assert events.count(COMPILED) == 2
    assert len(traces) == 2
    events.clear()
    for rows in (slice(None), slice(1), slice(9), slice(None)):
        descent.sweep(program, cells.take(cells.sweep(BY_32), rows))
    assert events.count(COMPILED) == 0
    assert events.count(TRACED) == 0
    assert len(traces) == 2
