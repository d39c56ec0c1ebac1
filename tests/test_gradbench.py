"""The eleven functions of GradBench are right, and its tools are read rightly."""

import json
import sys

import numpy as np
import pytest

from benchmarks import gradbench, gradbench_reference

FAST = ("kmeans", "llsq", "lse", "det")
SLOW = tuple(name for name in gradbench.SMALL if name not in FAST)


def wrong(name):
    return max(gradbench.check(name)) > gradbench.TOLERANCE


@pytest.mark.on_ci("the other functions", but="lse")
@pytest.mark.parametrize("name", FAST)
def test_value_and_derivative_agree_with_complex_steps(name):
    assert not wrong(name)


@pytest.mark.thorough("programs that compile for seconds; the fast form has four")
@pytest.mark.parametrize("name", SLOW)
def test_every_other_value_and_derivative_agrees_with_complex_steps(name):
    assert not wrong(name)


def test_a_derivative_that_is_wrong_by_little_is_seen(monkeypatch):
    monkeypatch.setattr(
        gradbench_reference, "lse", lambda x: np.log(np.sum(np.exp(x))) + 1e-8 * x[0]
    )
    assert wrong("lse")


@pytest.mark.thorough("seconds of NumPy; the fast form has what needs no descent")
def test_reference_has_the_answers_that_gradbench_states():
    found = gradbench_reference.particle(0.0)
    assert found == pytest.approx(0.2071918746486116, rel=1e-13)
    point = gradbench_reference.saddle(np.ones(2))
    np.testing.assert_allclose(point, 8.246324826140356e-06, rtol=1e-13)


def test_error_is_relative_to_the_largest_entry():
    assert gradbench.error(np.array([1.0, 4.0]), [1.0, 5.0]) == 0.2
    assert gradbench.error(np.zeros(2), [0.0, 0.0]) == 0
    assert gradbench.error(np.array([np.nan]), [1.0]) == np.inf
    assert gradbench.error(np.ones(2), [1.0]) == np.inf


def test_complex_step_of_a_matrix_has_its_axes_first():
    x = np.arange(6.0).reshape(2, 3)
    found = gradbench_reference.complex_step(lambda x: x @ np.ones(3), x)
    assert found.shape == (2, 3, 2)
    np.testing.assert_array_equal(found[0, 1], [1.0, 0.0])


def test_program_of_a_checkout_is_run_and_its_processor_time_is_measured(tmp_path):
    given = gradbench.make_input("lse", gradbench.SMALL["lse"])
    program = tmp_path / "tools" / "manual" / "bin" / "lse"
    program.parent.mkdir(parents=True)
    timings = [{"name": "evaluate", "nanoseconds": n} for n in (5000, 3000)]
    lines = [
        "[0.25, 0.75]",
        *map(json.dumps, [{"name": "prepare", "nanoseconds": 1}, *timings]),
    ]
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"assert sys.argv[2] == 'gradient'\n"
        "given = json.load(open(sys.argv[1]))\n"
        "assert len(given['x']) == 50 and given['min_runs'] == 3\n"
        "import time\n"
        "while time.process_time() < 0.05: pass\n"
        f"print({lines[0]!r})\n" + "".join(f"print({line!r})\n" for line in lines[1:])
    )
    program.chmod(0o755)
    output, seconds = gradbench.cpp("lse", given, tmp_path)(1, 3)
    np.testing.assert_array_equal(output, [0.25, 0.75])
    assert seconds >= 0.04


def test_start_of_a_program_does_not_count():
    call = lambda which, times: (np.zeros(1), 5.0 + 0.25 * times)
    assert gradbench.seconds_of_a_call(call, 1)[1] == pytest.approx(0.25)


def test_what_only_the_first_call_does_counts_for_nobody():
    def slow_at_first(cost):
        used = []

        def call(which, times):
            first = 0.0 if used else 7.0
            used.append(times)
            return np.zeros(1), first + cost * times

        return call

    # The tools cost 0.25 and 0.5 seconds a call, in every round.
    runs = gradbench.in_turns({"a": slow_at_first(0.25), "b": slow_at_first(0.5)}, 2)
    assert runs["a"].seconds[1] == pytest.approx([0.25, 0.25])
    for tool, cost in (("a", 0.25), ("b", 0.5)):
        assert runs[tool].seconds[0] == pytest.approx([cost, cost])


def test_every_round_begins_with_another_tool():
    seen = []

    def call(tool):
        def one(which, times):
            seen.append((which, tool))
            return np.zeros(1), float(times)

        return one

    gradbench.in_turns({tool: call(tool) for tool in "ab"}, 2)
    turns = [turn for i, turn in enumerate(seen) if turn != seen[i - 1]]
    assert turns == [(0, "a"), (0, "b"), (1, "a"), (1, "b")] + [
        (0, "b"),
        (0, "a"),
        (1, "b"),
        (1, "a"),
    ]


def test_pytorch_with_another_result_is_refused():
    mine, theirs = [np.ones(1), np.array([1.0, 2.0])], [np.ones(1), np.ones(2)]
    gradbench.check_same("lse", mine, mine)
    with pytest.raises(ValueError, match=r"the derivative of lse differs by 1\.0e\+00"):
        gradbench.check_same("lse", mine, theirs)


def test_folder_that_is_no_checkout_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        gradbench.main(["--checkout", str(tmp_path)])
    assert "has no folder tools/manual" in capsys.readouterr().err
