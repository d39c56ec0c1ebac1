"""The benchmarks of a study on networks and of derivatives: all contenders compute the
same, and what is behind is said.
"""

import numpy as np
import pytest

from benchmarks import clock, derivatives, network_studies
from benchmarks.derivatives import DerivativeRow
from benchmarks.network_studies import NetworkRow

COMPILE_QUICKLY = True


def spread(value):
    return clock.Spread(value, value, value)


@pytest.mark.thorough("what the benchmark checks before it measures")
@pytest.mark.parametrize("scanned", [False, True])
def test_optax_makes_the_trainings_of_the_study(scanned, monkeypatch):
    monkeypatch.setattr(network_studies, "RATES", np.array([1e-3]))
    ours, steps = network_studies._train_ours("mlp_digits", 2)
    theirs, same = network_studies._train_optax("mlp_digits", 2, scanned)
    assert steps == same
    losses = ours()
    assert losses.shape == (len(network_studies.SEEDS),)
    assert losses[0] != losses[1]
    np.testing.assert_allclose(theirs(), losses, rtol=1e-4)


def test_study_on_networks_names_the_goals_that_are_missed():
    row = lambda contender, ratio: NetworkRow(
        "mlp_digits", contender, 8, 100, 1.0, spread(2.0), ratio, 0.5
    )
    peers = list(network_studies.PEERS)
    ratios = (1.4, 1.7, 1.2, 1.9)  # Goals: 1.3 with all threads, 1.8 pinned.
    rows = [row(network_studies.OURS, None)]
    rows += [
        row(peer, spread(ratio)) for peer, ratio in zip(peers, ratios, strict=True)
    ]
    found = network_studies.section(rows)
    assert "1.20 to 1.40 times as fast as optax with all threads" in found.answer
    assert [line.split(", where")[0] for line in found.missed] == [
        f"mlp_digits: 1.20 times as fast as {peers[2]}",
        f"mlp_digits: 1.70 times as fast as {peers[1]}",
    ]
    with pytest.raises(ValueError, match="unknown network 'mlp'"):
        network_studies.measure(True, lambda what: None, ["mlp"])


@pytest.mark.thorough("what the benchmark checks before it measures")
def test_every_way_computes_the_same_derivative(monkeypatch):
    monkeypatch.setattr(derivatives, "ORDER", 3)
    monkeypatch.setattr(derivatives, "VARIABLES", 20)
    for ways in (derivatives.taylor_ways, derivatives.hessian_ways):
        rows = derivatives.compiled_row("this", *ways(), 1)
        assert rows[0].contender == derivatives.OURS
        assert all(row.ratio for row in rows[1:])
    ways, x = derivatives.taylor_ways()
    wrong = {**ways, "wrong": lambda x: 2 * ways[derivatives.OURS](x)}
    with pytest.raises(ValueError, match="this"):
        derivatives.compiled_row("this", wrong, x, 1)


def test_derivatives_behind_a_peer_are_named():
    rows = [
        DerivativeRow("a", "ours", spread(2.0), None, 1.0),
        DerivativeRow("a", "jet", spread(1.0), spread(0.5), 1.0),
        DerivativeRow("b", "ours", spread(2.0), None, None),
    ]
    found = derivatives.section(rows)
    assert found.missed == ["a: 0.500 times as fast as jet"]
    assert "in the call" in found.text
    for only in (["hessian"], ["taylor", "hessian"]):
        with pytest.raises(ValueError, match="no row begins with hessian; the rows"):
            derivatives.measure(True, lambda what: None, only)
