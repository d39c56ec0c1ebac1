"""Laws of the experiment on the chain rule: its numbers hold, its pictures show its
arrays, bad input is named.
"""

import dataclasses
import re
import xml.etree.ElementTree as ET

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import chain_rule_ledger
from research import cli, figures, runs, workloads

COMPILE_QUICKLY = True  # tests/conftest.py

GRAPHS = ["neuron", "softmax", "network", "bug"]
PICTURES = [
    *("neuron", "softmax", "softmax_adjoints", "network", "network_adjoints", "bug")
]
SVG = "{http://www.w3.org/2000/svg}"


# What make test leaves out: the tests of a fixture, and why.
THOROUGH = {
    "result": "a whole run; make test has its hunt for bugs here, whole runs in "
    "test_small_experiments.py, and ledgers in tests/derivatives"
}


@pytest.fixture(scope="module")
def result():
    return cli.conduct(chain_rule_ledger, chain_rule_ledger.Config())


@pytest.fixture(scope="module")
def pictures(result):
    return cli.report_of(chain_rule_ledger).draw(result)


def test_expected_numbers_hold_at_default_size(result):
    for name, (low, high) in chain_rule_ledger.EXPECTED.items():
        assert low <= result.numbers[name] <= high, name


def test_saved_gradient_of_the_real_model_is_jax_grads(result):
    workload = workloads.make_workload("digits")
    params = workload.init(jax.random.fold_in(jax.random.key(0), 0))
    expected = jax.grad(workload.objective)(params, workload.train)["weights"]
    np.testing.assert_allclose(
        result.arrays["softmax/gradient 0"], expected, rtol=1e-12, atol=1e-15
    )


def test_adjoints_of_the_logits_are_softmax_minus_the_class(result):
    # d/dz of the mean cross-entropy: (softmax(z) - e_y) / n.
    workload = workloads.make_workload("digits")
    params = workload.init(jax.random.fold_in(jax.random.key(0), 0))
    logits = workload.train.x[:12] @ params["weights"] + params["intercept"][None]
    expected = (jax.nn.softmax(logits) - jnp.eye(10)[workload.train.y[:12]]) / len(
        workload.train.y
    )
    np.testing.assert_allclose(
        result.arrays["softmax/adjoint 0"], expected, rtol=1e-10, atol=1e-16
    )


def test_table_of_the_neuron_is_what_a_pocket_calculator_gives(result):
    # σ(0.7) = 0.66819; 2 (0.66819 - 1) = -0.66362; times 0.66819 · 0.33181 = -0.14713;
    # times 2 and 0.5.
    rows = result.tables[0].rows
    assert [row[1] for row in rows] == ["w · x", "v1 + b", "σ(v2)", "v3 - y", "v4²"]
    np.testing.assert_allclose(
        [row[2] for row in rows], [1, 0.7, 0.66819, -0.33181, 0.11010], atol=5e-6
    )
    np.testing.assert_allclose(
        [row[4] for row in rows], [-0.14713, -0.14713, -0.66362, -0.66362, 1], atol=5e-6
    )
    assert rows[0][3] == "w: × 2 → -0.2943, x: × 0.5 → -0.07357"


def test_every_planted_bug_is_one(result):
    for f, x, _, _ in chain_rule_ledger.bugs().values():
        value, grad = jax.value_and_grad(f)(x)
        assert not (np.isfinite(value) and np.isfinite(np.asarray(grad)).all())
    assert len({bug["line"] for bug in result.numbers["hunted"]}) == 10


@pytest.mark.on_ci("a whole hunt; nothing shorter shows this")
def test_a_wrong_origin_is_counted(monkeypatch):
    planted = chain_rule_ledger.bugs()
    name = next(iter(planted))
    planted[name] = (*planted[name][:2], "log", True)
    monkeypatch.setattr(chain_rule_ledger, "bugs", lambda: planted)
    assert [bug["right"] for bug in chain_rule_ledger.hunt({})] == [False, *[True] * 9]


def test_captions_hold_numbers(pictures):
    assert list(pictures) == PICTURES
    for picture in pictures.values():
        assert re.search(r"\d", picture.caption)


@pytest.mark.parametrize("name", PICTURES)
def test_figures_are_saved(name, pictures, tmp_path):
    assert figures.save(pictures[name], tmp_path, name).still.stat().st_size > 0


def test_pictures_show_the_boxes_of_the_saved_graph(result, pictures):
    for name in GRAPHS:
        drawn = ET.fromstring(pictures[name].figure)
        shown = {"".join(text.itertext()) for text in drawn.iter(f"{SVG}text")}
        texts = result.arrays[f"{name}/texts"][:, :2].astype(str)
        labels = result.arrays[f"{name}/labels"][:, :2].astype(str)
        assert {*texts.ravel(), *labels.ravel()} - {""} <= shown


def test_only_boxes_that_are_not_finite_are_red(pictures):
    red = {name: pictures[name].figure.count(' spoilt"') for name in GRAPHS}
    assert red["bug"] > 0
    assert not any(red[name] for name in GRAPHS if name != "bug")


def test_same_config_gives_the_same_bytes(result):
    again = cli.conduct(chain_rule_ledger, chain_rule_ledger.Config())
    other = cli.conduct(chain_rule_ledger, chain_rule_ledger.Config(seed=1))
    hashes = [
        runs.hash_arrays(*found.arrays.values()) for found in (result, again, other)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    ("field", "value"), [("hidden", 0), ("examples", 0), ("examples", 5000)]
)
def test_bad_config_names_its_field_and_value(field, value):
    with pytest.raises(ValueError, match=re.escape(f"{field}={value}")):
        cli.conduct(
            chain_rule_ledger,
            dataclasses.replace(chain_rule_ledger.Config(), **{field: value}),
        )
