"""Laws of the public edge: every public function takes its valid call, and says clearly
what is wrong with a wrong one.
"""

import os

import fuzzing
import jax.numpy as jnp
import outcomes
import public_calls
import pytest
import runcall
import wrong_values

COMPILE_QUICKLY = True  # tests/conftest.py

# Just above the shares of these cases: 3.3 % and 1.2 % of 1,000, 3.0 % and 1.3 % of
# 4,000.
MOST_UNCLEAR, MOST_SILENT = 0.035, 0.015


@pytest.fixture(autouse=True, scope="module")
def clean_up(tmp_path_factory):
    before = os.getcwd()
    os.chdir(
        tmp_path_factory.mktemp("here")
    )  # A wrong path may be that of a new folder.
    yield
    os.chdir(before)
    for clean in public_calls.functions_at_exit:
        clean()


def case_of(function, valid, value, argument="x", label="object"):
    call = public_calls.Call("made.up", function, {argument: valid})
    return outcomes.Case(call, argument, wrong_values.Wrong(label, lambda: value))


@pytest.mark.on_ci(
    "all valid calls, which take seconds to make; make test runs the docstrings' "
    "examples"
)
def test_every_public_function_has_a_valid_call():
    called = {call.name for call in public_calls.calls()}
    without = (
        public_calls.public_functions().keys()
        - called
        - public_calls.NOT_CALLED
        - public_calls.WITHOUT_ARGUMENTS
    )
    assert not without, (
        f"add a valid call of each to tests/fuzz/public_calls.py: {sorted(without)}"
    )


@pytest.mark.on_ci("all valid calls; make test runs the docstrings' examples")
def test_every_valid_call_is_accepted():
    for call in public_calls.calls():
        if not call.slow:
            with outcomes.quiet():
                runcall.perform(call.function, call.arguments)


@pytest.mark.on_ci("1000 wrong calls; the tests of each module have its refusals")
@pytest.mark.parametrize(
    "cases",
    [
        1000,
        pytest.param(4000, marks=pytest.mark.thorough("four times as many calls")),
    ],
)
def test_wrong_arguments_are_refused_by_name(cases):
    found = fuzzing.fuzz(fuzzing.sample(0, cases))
    shares = fuzzing.shares(found)
    bad = [o for o in found if o.kind in ("unclear error", "silent nonsense")]
    shown = "\n".join(f"{o.kind}: {o.case}: {o.error}: {o.message}" for o in bad)
    assert shares["unclear error"] <= MOST_UNCLEAR, shown
    assert shares["silent nonsense"] <= MOST_SILENT, shown


# The fuzzer itself: what it calls unclear, silent and clear.
def unnamed(x):
    return x.no_such_attribute


def ignores(x: float = 1.0):
    return 1.0


def drops_nan(x: jnp.ndarray):
    return 1.0


def test_fuzzer_tells_unclear_silent_and_sensible_apart():
    assert outcomes.outcome_of(case_of(unnamed, 1.0, object())).kind == "unclear error"
    assert (
        outcomes.outcome_of(case_of(ignores, 1.0, object())).kind == "silent nonsense"
    )
    assert (
        outcomes.outcome_of(case_of(ignores, 1.0, float("nan"), label="NaN")).kind
        == "silent nonsense"
    )
    assert outcomes.outcome_of(case_of(ignores, 1.0, 1, label="1")).kind == "accepted"
    refused = case_of(
        public_calls.research.losses.huber,
        jnp.ones(2),
        "a",
        argument="prediction",
        label="text",
    )
    assert (
        outcomes.outcome_of(
            refused._replace(
                call=refused.call._replace(arguments={"prediction": 1.0, "target": 1.0})
            )
        ).kind
        == "clear error"
    )
