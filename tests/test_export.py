"""Laws of export for CPU, CUDA and TPU: a step of 20 rules of every kind, a step of
three models, and a run of each sampler. Models and runs have full matmul precision.
"""

import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from research import descent, samplers, update_rules, workloads

COMPILE_QUICKLY = True  # tests/conftest.py

PLATFORMS = ("cpu", "cuda", "tpu")
MODELS = {"linear": "diabetes", "logistic": "breast_cancer", "softmax": "digits"}
SAMPLERS = {
    "full batch": samplers.full_batch,
    "mini-batch": lambda n: samplers.minibatch(n, 32),
    "stochastic": samplers.stochastic,
}


def single(name):
    """The workload in float32, the precision that an accelerator would round."""
    return workloads.make_workload(name, dtype="float32")


def begun(workload, rule):
    """The first state, and the step."""
    init, step = descent.build(workload.objective, rule, workload.train)
    return init(workload.init(jax.random.key(0))), step


def there_and_back(function, *arguments, platforms=PLATFORMS):
    """A function of leaves as an exported program, after a trip through bytes."""
    exported = jax.export.export(jax.jit(function), platforms=platforms)(*arguments)
    assert exported.platforms == platforms
    return jax.export.deserialize(exported.serialize())


def assert_exported_is_direct(function, *arguments):
    """The exported program against JAX's own call; gives the one for all platforms
    back.

    Exported are the leaves: a state is a named tuple, which JAX writes to bytes only
      where its type was registered.
    """
    leaves, tree = jax.tree.flatten(arguments)
    of_leaves = lambda *given: jax.tree.leaves(function(*tree.unflatten(given)))
    direct = jax.tree.leaves(jax.jit(function)(*arguments))
    assert len(direct) > 1
    for_cpu = there_and_back(of_leaves, *leaves, platforms=("cpu",))
    for got, want in zip(for_cpu.call(*leaves), direct, strict=True):
        np.testing.assert_array_equal(got, want)
        assert got.dtype == want.dtype
    # A program for several platforms chooses between them inside itself, which keeps
    # XLA from fusing across the choice: float32 then rounds elsewhere, by 1e-6 of a
    # value of order one over a run of 796 steps.
    for_all = there_and_back(of_leaves, *leaves)
    for got, want in zip(for_all.call(*leaves), direct, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    return for_all


def products(exported) -> list[str]:
    """The matrix products of an exported program, a line each."""
    return re.findall(r"stablehlo\.dot_general.*", exported.mlir_module())


def is_at_full_precision(product: str) -> bool:
    return re.search(r"precision = \[HIGHEST, HIGHEST\]", product) is not None


@pytest.mark.thorough("the other models, and batches", but="logistic-full")
@pytest.mark.on_ci("a step alone; nothing shorter shows this")
@pytest.mark.parametrize(
    "indices",
    [None, jnp.arange(32, dtype=jnp.int32)],
    ids=["full batch", "batch of 32"],
)
@pytest.mark.parametrize("name", MODELS.values(), ids=MODELS)
def test_a_step_of_every_model_exports(name, indices):
    workload = single(name)
    rule = update_rules.heavy_ball(0.1)
    state, step = begun(workload, rule)
    exported = assert_exported_is_direct(step, state, descent.BatchIndices(indices))
    assert products(exported)
    assert all(map(is_at_full_precision, products(exported)))


# The plain ones, and one of each kind of state: averages, matrices, estimates, another
# point, a memory of steps.
RULES = (
    *(
        "gradient_descent",
        "heavy_ball",
        "nesterov",
        "adagrad",
        "rmsprop",
        "adam",
        "adamw",
    ),
    *("polyak_averaging", "muon", "shampoo", "soap", "prodigy", "schedule_free_adamw"),
    *("adafactor", "sm3", "lars", "cautious_adamw", "mechanic", "momo_adam", "sam"),
)


@pytest.mark.thorough("the other kinds", but=r"^sam\]")
@pytest.mark.on_ci("sam; nothing shorter shows this")
@pytest.mark.parametrize("name", RULES)
def test_a_step_of_every_kind_of_rule_exports(name):
    rule = update_rules.UPDATE_RULES[name]
    workload = single("breast_cancer")
    first, step = begun(workload, rule(0.01))
    batch_indices = descent.BatchIndices(jnp.arange(32, dtype=jnp.int32))
    second, _ = jax.jit(step)(first, batch_indices)  # A state that is not all zeros.
    assert_exported_is_direct(step, second, batch_indices)


@pytest.mark.on_ci("whole runs; nothing shorter shows this")
@pytest.mark.thorough("the other samplers", but="full batch")
@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_a_run_of_every_sampler_exports(sampler):
    workload = single("breast_cancer")
    rule = update_rules.adam(0.01)
    first, step = begun(workload, rule)
    assert workload.train is not None
    batches = sampler(len(workload.train.y))
    evaluate = lambda params: workload.objective(params, workload.train)

    def train(state, seed, epochs):
        return descent.run(
            step, state, batches, jax.random.key(seed), epochs, evaluate=evaluate
        )

    epochs = np.arange(2, dtype=np.int32)
    exported = assert_exported_is_direct(train, first, 1, epochs)
    assert all(map(is_at_full_precision, products(exported)))


def test_precision_law_sees_less():
    """What an accelerator would be sent without `backend.configure`, and with a
    precision in between.
    """
    x = np.ones((4, 4), np.float32)
    for precision in ("default", "high", "highest"):
        with jax.default_matmul_precision(precision):
            found = products(there_and_back(lambda a: a @ a, x))
        assert found
        assert all(
            is_at_full_precision(product) == (precision == "highest")
            for product in found
        )
