"""The comparison of an accelerator with the CPU says what it should: here the CPU
stands for the accelerator, right, slightly wrong, imprecise and not repeatable.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from research import update_rules
from tests import device

TOP = Path(__file__).parent.parent


def spoilt(function, monkeypatch, name, wrong):
    """Replace a function of `device`: its n-th result goes through `wrong(n, ...)`."""
    count = iter(range(100))
    monkeypatch.setattr(device, name, lambda *a: wrong(next(count), function(*a)))


def rule_row(wrong, monkeypatch):
    spoilt(device.walk_constructed, monkeypatch, "walk_constructed", wrong)
    return device.row_of_rule(update_rules.adam, "adam", jax.devices()[0])


def scaled(walk, factor):
    return walk._replace(iterates=walk.iterates * factor)


# The CPU's, then the accelerator's, then its rerun.
WALKS = {
    "right": (lambda n, walk: walk, ""),
    "slightly wrong": (lambda n, walk: scaled(walk, 1 + 1e-9 * (n > 0)), "differs"),
    "NaN": (lambda n, walk: scaled(walk, np.nan if n else 1.0), "differs"),
    "rerun": (lambda n, walk: scaled(walk, 1 + 2.0**-52 * (n > 1)), "other bits"),
}


@pytest.mark.parametrize("case", WALKS)
def test_a_rule_that_differs_or_is_not_repeatable_is_seen(case, monkeypatch):
    wrong, fault = WALKS[case]
    row = rule_row(wrong, monkeypatch)
    assert fault in row.fault
    assert bool(row.fault) == bool(fault)


def tf32(gradient):
    """Numbers with ten bits behind the point, as TF32 multiplies."""
    mantissa, exponent = np.frexp(gradient)
    return np.ldexp(np.round(mantissa * 2**11) / 2**11, exponent)


GRADIENTS = {
    "right": (lambda n, found: found, ""),
    "TF32": (lambda n, found: tf32(found) if n > 1 else found, "highest precision"),
    "NaN": (lambda n, found: found * np.nan if n > 1 else found, "highest precision"),
    "rerun": (lambda n, found: found * (1 + 2.0**-52 * (n > 2)), "other bits"),
}


@pytest.mark.on_ci(
    "the case without a mistake; rerun has a precise gradient too, and the test above "
    "has equal bits",
    but="TF32|NaN|rerun",
    caught_by="test_an_imprecise_gradient_is_seen",
)
@pytest.mark.parametrize("case", GRADIENTS)
def test_an_imprecise_gradient_is_seen(case, monkeypatch):
    wrong, fault = GRADIENTS[case]
    spoilt(device.gradient, monkeypatch, "gradient", wrong)
    row = device.row_of_gradient("mlp", jax.devices()[0])
    assert fault in row.fault
    assert bool(row.fault) == bool(fault)


def test_report_counts_what_is_wrong(capsys):
    right, wrong = device.Row("adam", 0.0, 1.0, ""), device.Row("sam", 2.0, 1.0, "bad")
    assert device.report(iter([right])) == 0
    assert device.report(iter([right, wrong])) == 1
    assert "sam: 2 of at most 1, WRONG: bad" in capsys.readouterr().out


def test_the_accelerator_is_the_first_device_that_is_not_a_cpu():
    cpu, gpu = (SimpleNamespace(platform=name) for name in ("cpu", "gpu"))
    assert device.accelerator([cpu, gpu]) is gpu
    assert device.accelerator([cpu]) is None


def test_every_rule_has_a_problem_on_which_it_is_compared():
    for name in update_rules.UPDATE_RULES:
        assert device.problem_of(name).objective is not None


def printed(*words):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.device", *words],
        cwd=TOP,
        env=environment | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.thorough("two processes; the parts are tested above")
def test_without_an_accelerator_one_sentence_says_so():
    assert printed() == f"{device.NONE}\n"
    pretended = printed("--pretend", "--rule", "gradient_descent", "--rule", "muon")
    assert "2 comparisons, 0 of them wrong." in pretended
