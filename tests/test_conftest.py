"""What every test relies on: a limit, and the signals of a terminal."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from research import losses, runs

HERE = Path(__file__).parent


@pytest.fixture
def conftest(request):
    """This folder's conftest, as a module."""
    return request.config.pluginmanager.get_plugin(str(HERE / "conftest.py"))


def test_waiting_ends_at_the_limit(conftest, monkeypatch):
    monkeypatch.setattr(conftest, "LIMIT", 0.05)
    limited = conftest.limited(None)
    next(limited)
    with pytest.raises(pytest.fail.Exception, match=r"longer than 0\.05 seconds"):
        time.sleep(60)
    limited.close()
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.on_ci("another process; nothing shorter shows this")
def test_in_the_background_ctrl_c_is_not_ignored():
    program = (
        "import runpy, signal; ignored = signal.getsignal(signal.SIGINT); "
        "runpy.run_path('tests/conftest.py'); "
        "print(ignored == signal.SIG_IGN, "
        "signal.getsignal(signal.SIGINT) is signal.default_int_handler, "
        "signal.getsignal(signal.SIGQUIT) == signal.SIG_DFL)"
    )
    command = ["sh", "-c", "trap '' INT QUIT; exec \"$@\"", "sh"]
    done = subprocess.run(
        [*command, sys.executable, "-c", program],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True True True\n"


class Item:
    """One case of a law, for a rule."""

    def __init__(self, law, rule, marks):
        self.name, self.rule, self.marks = f"test_{law}[{rule}]", rule, marks
        self.nodeid = f"tests/laws/test_every_rule.py::{self.name}"

    def get_closest_marker(self, name):
        return name if name in self.marks else None


def test_on_the_lower_bounds_each_law_meets_a_rule_and_each_rule_a_law(conftest):
    laws, rules = range(conftest.ONE_CASE_IN), range(67)
    items = [Item(law, rule, {"every_version"}) for law in laws for rule in rules]
    others = [
        Item("slow", 0, {"every_version", "thorough"}),
        Item("of_numpy", 0, {}),
        Item(conftest.NOT_SAMPLED[0].removeprefix("test_"), 0, {"every_version"}),
    ]
    found = conftest.sampled([*items, *others])
    assert {i.name.partition("[")[0] for i in found} == {f"test_{i}" for i in laws}
    assert {i.rule for i in found} == set(rules)
    assert len(found) <= len(items) / conftest.ONE_CASE_IN + len(laws)
    few = [Item("few", rule, {"every_version"}) for rule in range(2)]
    assert len(conftest.sampled(few)) == 1
    every = conftest.ONE_TEST_IN
    alone = [Item(law, 0, {"every_version"}) for law in range(2 * every)]
    assert conftest.sampled(alone) == [alone[0], alone[every]]
    alone[1].name = conftest.ALWAYS
    assert conftest.sampled(alone) == [alone[0], alone[1], alone[every]]


def planting(*cases, **marked):
    """Cases of a test of mutants; those that are no case of make test have a mark."""

    def test_of_one():
        pass

    @pytest.mark.thorough("all of it")
    def test_that_is_left_out():
        pass

    mark = pytest.mark.thorough("the others", but="first", **marked).mark
    module = SimpleNamespace(
        test_of_one=test_of_one, test_that_is_left_out=test_that_is_left_out
    )
    return [
        SimpleNamespace(
            nodeid=f"tests/test_x.py::test_mutants_are_caught[{case}]",
            module=module,
            get_closest_marker=lambda name, case=case: (
                None if case == "first" else mark
            ),
        )
        for case in cases
    ]


def test_a_mistake_that_is_left_out_names_the_test_that_catches_it(conftest):
    check = conftest.check_that_cases_are_kept
    check(planting("first", "second", caught_by="test_of_one"))
    for wrong in ({}, {"caught_by": "test_no"}, {"caught_by": "test_that_is_left_out"}):
        with pytest.raises(pytest.UsageError, match=r"second.* plants a mistake"):
            check(planting("first", "second", **wrong))
    with pytest.raises(pytest.UsageError, match="keeps no case"):
        check(planting("second", "third", caught_by="test_of_one"))


def test_a_mark_names_only_tests_that_make_test_has(conftest):
    check = conftest.check_that_named_tests_are_kept

    def of(words):
        item = planting("first")[0]
        item.get_closest_marker = lambda name: pytest.mark.on_ci(words).mark
        return [item]

    check(of("a study; test_of_one has a part of it, and test_x.py another"))
    with pytest.raises(pytest.UsageError, match="has test_that_is_left_out, which"):
        check(of("a study; test_that_is_left_out has a part of it"))


@pytest.mark.parametrize(
    ("target", "traced"),
    [
        (losses, True),
        ("research.models.backward.ACTIVATION_DERIVATIVES", True),
        (losses.squared_error.__globals__, True),
        (jax, True),
        (runs, False),
        ("research.cli.data.data", False),
        (Path, False),
        (sys.modules, False),
    ],
)
def test_a_program_never_outlives_what_was_replaced_in_it(
    conftest, monkeypatch, target, traced
):
    forgotten = []
    replaced = conftest.Replacing.replaced
    monkeypatch.setattr(conftest.jax, "clear_caches", lambda: forgotten.append(1))
    conftest.Replacing.replaced, forgotten[:] = False, []
    with conftest.Replacing.context() as patch:
        for _ in range(2):
            if isinstance(target, dict):
                patch.setitem(target, "new_name", 1)
            elif isinstance(target, str):
                patch.setattr(target, 1)
            else:
                patch.setattr(target, "new_name", 1, raising=False)
        assert conftest.Replacing.replaced == traced
    assert forgotten == [1] * traced
    conftest.Replacing.replaced = replaced


def test_memory_is_that_of_this_process(conftest):
    before = conftest.memory()
    held = b"x" * 100_000_000
    assert conftest.memory() - before > 0.9 * len(held)
