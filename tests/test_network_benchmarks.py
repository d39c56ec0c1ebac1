"""The benchmark of networks: everyone trains the same network on the same batches, and
what is missed is said.
"""

import numpy as np
import pytest

from benchmarks import clock, first_steps, network_jobs, networks, networks_linen
from benchmarks.contender import Contender
from benchmarks.networks import NetworkRow

COMPILE_QUICKLY = True  # tests/conftest.py


@pytest.mark.thorough("what make bench checks before it measures")
def test_ours_and_the_flax_loop_make_the_same_training():
    job = network_jobs.make_job("mlp", 3)
    assert job.order.shape == (3, 64)
    assert len(np.unique(job.order)) == 3 * 64  # No example comes twice in an epoch.
    ours, theirs = networks.ours(job), networks_linen.python_loop(job)
    mine = ours.train()
    assert mine[0] > 1  # It begins where nothing is known: about log 10.
    np.testing.assert_allclose(theirs.train(), mine, rtol=1e-5)
    np.testing.assert_array_equal(ours.train(), mine)  # It begins anew each time.


@pytest.mark.thorough("twins, of which make bench compares the losses")
@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_a_twin_has_as_many_numbers(name):
    job = network_jobs.make_job(name, 1)
    _, params = networks_linen.twin(job)
    count = lambda tree: sum(np.size(leaf) for leaf in networks.jax.tree.leaves(tree))
    assert count(params) == count(job.params)
    assert {leaf.dtype for leaf in networks.jax.tree.leaves(job.params)} == {
        np.dtype("float32")
    }


def test_the_answer_counts_what_is_ahead_and_names_what_is_not():
    spread = lambda value: clock.Spread(value, value, value)
    row = NetworkRow(
        "mlp", "784-10", "ours", "", spread(1.0), 2.0, loss=2.3, apart=1e-6
    )
    slower, faster = (
        row._replace(contender=name, ratio=spread(one), ratio_on_devices=spread(two))
        for name, one, two in (("A", 2.0, 0.8), ("B", 0.5, 0.25))
    )
    found = networks.section(
        [row, slower, faster, NetworkRow("mlp", "784-10", "C", "not installed")]
    )
    assert (
        "as fast as a peer's on one device in 1 of 2 (the ratios go from 0.500 to 2.00)"
        " and on 2 devices in 0 of 2" in found.answer
    )
    assert found.missed == [
        "network, mlp: B is faster, ours on one device has 0.500 of its speed",
        "network, mlp: A is faster, ours on 2 devices has 0.800 of its speed",
        "network, mlp: B is faster, ours on 2 devices has 0.250 of its speed",
    ]
    assert "| mlp | C | - | - | - | - | - | not installed |" in found.text
    alone = networks.section([row, slower._replace(ratio_on_devices=None)])
    assert alone.answer.endswith(
        "on one device in 1 of 1 (the ratios go from 2.00 to 2.00)."
    )


@pytest.mark.on_ci("trainings of every peer; nothing shorter shows this")
def test_each_of_ours_is_held_against_the_others(monkeypatch):
    seconds = {
        "ours": np.array([2.0]),
        "ours, on 2 devices": np.array([1.0]),
        "A": np.array([3.0]),
    }
    found = [Contender(name, lambda: np.array([0.5]), 0.1) for name in seconds]
    monkeypatch.setattr(networks, "contenders", lambda job: (found, []))
    monkeypatch.setattr(clock, "take_turns", lambda calls, rounds: seconds)
    one, two, other = networks.measure_job(network_jobs.make_job("mlp", 1), 1)
    assert (one.ratio, two.ratio, other.ratio.median) == (None, None, 1.5)
    assert (one.ratio_on_devices, two.ratio_on_devices) == (None, None)
    assert other.ratio_on_devices.median == 3.0


def test_a_network_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match=r"there is no network cmn; known: mlp, cnn"):
        networks.measure(True, print, ["cmn"])


def test_the_first_steps_are_counted_with_and_without_the_params(monkeypatch):
    seconds = {
        "ours": (3.0, 2.0),
        "ours, init jitted": (1.0, 2.0),
        "Flax": (4.0, 1.0),
        "Flax, init jitted": (2.0, 1.6),
    }
    monkeypatch.setattr(
        first_steps, "start", lambda words: "{} {} 7".format(*seconds[words[2]])
    )
    found = first_steps.section(first_steps.measure(True, lambda what: None))
    assert found.answer.startswith(
        "The first step of a network takes at most 1.5 times as long as with Flax in "
        "1 of 1 (1.00 to 1.00 times) networks, with drawing the params (init not "
        "jitted), and in 0 of 1 (2.00 to 2.00 times) without."
    )
    assert "in 1 of 1 (0.833 to 0.833 times)" in found.answer
    assert found.missed == [
        "first step, mlp: ours takes 2.00 times the seconds of Flax, params apart"
    ]
    with pytest.raises(ValueError, match="there is no network nlp"):
        first_steps.measure(True, print, ["nlp"])
