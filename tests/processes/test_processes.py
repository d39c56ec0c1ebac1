"""Laws of processes that train together: what goes wrong in one is said by all."""

import errno
import json
import os

import numpy as np
import pytest

from research import cluster
from research.descent import _processes
from tests.processes import matrix

PLAIN = {"devices": 2, "pool": 2}


def sentences(options, shape=2):
    """What the processes of a failed training say, and the seconds that it took."""
    return matrix.killed(matrix.started(shape, PLAIN | options))


@pytest.mark.thorough("two processes; .ci/run kills process 1 (test_mesh.py)")
def test_the_others_end_if_the_coordinator_is_killed():
    words, seconds = sentences({"kill": [0, 1]})
    assert any("process 0 was stopped from outside by signal 9" in w for w in words)
    assert any("process 1" in w and "Rerun the same command" in w for w in words)
    assert seconds < 60 + 30  # JAX starts and compiles in the first half minute.


@pytest.mark.thorough("two processes")
def test_hosts_with_other_params_are_refused_by_name():
    words, _ = sentences({"differ": 1})
    assert any("process 1 on " in w and "initial params or state" in w for w in words)


@pytest.mark.thorough("two processes")
@pytest.mark.parametrize("absent", [0, 1])
def test_a_host_that_never_arrives_is_waited_for_as_long_as_asked(absent):
    words, _ = sentences({"absent": absent, "seconds": 5})
    assert f"process {1 - absent} of 2 waited 5 s for the other processes" in words[0]
    assert "not all of them arrived" in words[0]


@pytest.mark.thorough("two processes")
def test_a_checkpoint_that_cannot_be_written_stops_all_processes(tmp_path):
    (tmp_path / "file").touch()
    words, _ = sentences({"folder": str(tmp_path / "file")})
    assert sum("a file is in the place of a folder" in w for w in words) == 2
    assert any("process 0: Cannot make" in w for w in words)


@pytest.mark.thorough("fifteen trainings of processes")
def test_three_shapes_have_one_hash_and_resume_one_another(capsys):
    assert matrix.run(["mlp"], ["adam"], [True])
    assert "mlp, adam, fully sharded: " in capsys.readouterr().out


# What the launchers set, and the place that it means.
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "3",
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "3",
}
MPICH = {"PMI_SIZE": "3", "PMI_RANK": "2", "MPI_LOCALNRANKS": "3"}
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-3]",
    "SLURM_NTASKS": "3",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}


@pytest.fixture
def variables(monkeypatch):
    """Set variables, and nothing of another launcher."""
    for name in os.environ:
        if name.startswith(("SLURM", "OMPI", "PMI", "MPI", "DESCENT_")):
            monkeypatch.delenv(name)
    return lambda of: [monkeypatch.setenv(*item) for item in of.items()]


@pytest.mark.parametrize("launcher", [OPEN_MPI, MPICH], ids=["Open MPI", "MPICH"])
def test_mpi_gives_the_place_and_processes_of_one_host_agree_on_a_port(
    launcher, variables
):
    variables(launcher)
    place, address = cluster._place(None, None, None)
    assert place == (2, 3)
    host, port = address.split(":")
    assert host == "localhost"
    assert 1024 < int(port) < 32_768
    assert cluster._place(None, None, None)[1] == address


@pytest.mark.parametrize("launcher", [OPEN_MPI, MPICH], ids=["Open MPI", "MPICH"])
def test_mpi_on_several_hosts_needs_an_address(launcher, variables):
    variables({name: "1" if "LOCAL" in name else v for name, v in launcher.items()})
    with pytest.raises(ValueError, match=r"join\(coordinator='HOST:PORT'\)"):
        cluster.join()
    assert cluster._place("node1:9", None, None) == ((2, 3), "node1:9")


def test_slurm_gives_the_place_and_jax_finds_the_address(variables):
    variables(SLURM)
    assert cluster._place(None, None, None) == ((2, 3), None)
    variables(cluster.variables("node1:9", cluster.Place(0, 2)))
    assert cluster._place(None, None, None) == ((0, 2), "node1:9")
    assert cluster._place("node1:9", None, None) == ((0, 2), "node1:9")
    with pytest.raises(ValueError, match="'node2:9' contradicts the environment"):
        cluster.join("node2:9")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("node1:9", None, None), "also needs num_processes and process_id"),
        (("node1:9", 2, None), "belong together; process_id is missing"),
        (("node1", 2, 0), "must be HOST:PORT"),
        (("node1:0", 2, 0), "must be HOST:PORT"),
        (("node1:9", 2, 2), r"process_id must lie in 0\.\.num_processes - 1"),
        (("node1:9", 0, 0), "num_processes must be a positive integer"),
    ],
)
def test_arguments_that_contradict_one_another_are_refused(arguments, words, variables):
    variables({})
    with pytest.raises(ValueError, match=words):
        cluster.join(*arguments)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left"), "process 0: No space left"),
        (
            OSError(errno.EACCES, "Not allowed", "a.npz"),
            "process 0: Not allowed: a.npz",
        ),
        (OSError("Only words"), "process 0: Only words"),
        (ValueError("A bad file"), "process 0: A bad file"),
    ],
)
def test_all_processes_raise_the_error_of_the_leader_without_its_number(
    monkeypatch, error, words
):
    texts = []

    def exchanged(text):
        texts.append(text)
        return texts

    def task():
        raise error

    monkeypatch.setattr(_processes, "texts_of_all", exchanged)
    for leads in (True, False):
        monkeypatch.setattr(_processes, "is_leader", lambda leads=leads: leads)
        with pytest.raises((OSError, ValueError)) as raised:
            _processes.by_leader(task)
        assert str(raised.value) == (str(error) if leads else words)


@pytest.mark.parametrize("text", ["", "é" * 3000, "a\udcff"])
def test_texts_of_any_length_are_exchanged_whole(monkeypatch, text):
    """Flags of XLA were cut at 2,048 bytes, and no training of processes began."""
    monkeypatch.setattr(_processes.jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        _processes.multihost_utils, "process_allgather", lambda row: np.stack([row] * 2)
    )
    sent = text.replace("\udcff", "?")
    assert _processes.texts_of_all(text) == [sent, sent]


def test_a_process_that_differs_is_named_with_what_differs(monkeypatch):
    monkeypatch.setattr(_processes.jax, "process_count", lambda: 3)
    facts = [("2", "a" * 64), ("3", "a" * 64), ("2", "b" * 64)]
    texts = [
        json.dumps({"host": f"node{i}", "NPROC": pool, "code": code})
        for i, (pool, code) in enumerate(facts)
    ]
    monkeypatch.setattr(_processes, "texts_of_all", lambda text: texts)
    with pytest.raises(ValueError, match="all processes must run the same") as error:
        _processes.check_same_everywhere({"NPROC": "2", "code": "a" * 64})
    words = str(error.value)
    assert "process 1 on node1 has another NPROC (3 instead of 2)" in words
    assert "process 2 on node2 has another code (digest bbbbbbbb instead" in words
    assert "Process 0 runs on node0" in words


def test_bytes_of_the_leader_arrive_in_pieces(monkeypatch):
    sent = []

    def broadcast(piece):
        sent.append(len(piece))
        return piece

    monkeypatch.setattr(_processes, "PIECE", 3)
    monkeypatch.setattr(_processes.jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        _processes, "numbers_of_all", lambda values: np.array([values, values])
    )
    monkeypatch.setattr(_processes.multihost_utils, "broadcast_one_to_all", broadcast)
    for data in (b"", b"01", b"012345", b"0123456789"):
        assert _processes.bytes_of_leader(data) == data
    assert sent == [2, 3, 3, 3, 3, 3, 1]
