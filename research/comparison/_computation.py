"""Identify a measurement by a digest of what it computes."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research import descent
from research.descent._program_text import arrays_digest, program_text
from research.types import Workload
from research.workloads._construction import data_digest


def computation_digest(
    workload: Workload,
    make_rule: Callable[..., optax.GradientTransformation],
    hyperparameters: Iterable[str],
    batch_size: int | None,
) -> str:
    """Return the SHA-256 digest of the computations of a training, in hex.

    The digest covers the programs of the initial point, of the objective and the metric
    on each part of the data, and of one step of the rule. It also covers the optimum
    and the data. A program is the text that JAX writes before it compiles. This text
    has the operations, the shapes, the dtypes and the constants, so the digest also
    depends on values that a rule or an objective takes from a closure. The digest is
    the same in every process on the same kind of device. The text does not have the
    code of Python functions that the compiled program calls (callbacks).

    Args:
      workload: Workload.
      make_rule: Function from hyper-parameters, by name, to the rule.
      hyperparameters: Names of the searched hyper-parameters.
      batch_size: Number of examples in a batch; None means all.
    """
    digest = hashlib.sha256()
    for text in (
        f"x64 {jax.config.read('jax_enable_x64')}",
        f"data {data_digest(workload)}",
        f"optimum {_optimum_digest(workload)}",
        *_programs(workload, make_rule, hyperparameters, batch_size),
    ):
        digest.update(f"{len(text)} {text}".encode())
    return digest.hexdigest()


def _programs(
    workload: Workload,
    make_rule: Callable[..., optax.GradientTransformation],
    hyperparameters: Iterable[str],
    batch_size: int | None,
) -> Iterable[str]:
    """Yield the texts of the programs of a training."""

    def step(
        values: Mapping[str, Any], params: Any, indices: Any, data: Any
    ) -> tuple[Any, Any]:
        built = descent.build(workload.objective, make_rule(**values), data)
        return built.step(built.init(params), descent.BatchIndices(indices))

    key = jax.random.key(0)
    params = jax.eval_shape(workload.init, key)
    yield _text(workload.init, key)
    held_out = [workload.validation, workload.test]
    for part in (workload.train, *(one for one in held_out if one is not None)):
        yield _text(workload.objective, params, part)
        if workload.metric is not None:
            yield _text(workload.metric, params, part)
    values = {
        name: jax.ShapeDtypeStruct((), jnp.result_type(float))
        for name in hyperparameters
    }
    indices = None
    if workload.train is not None and batch_size is not None:
        indices = jax.ShapeDtypeStruct((batch_size,), np.int32)
    yield _text(step, values, params, indices, workload.train)


def _text(function: Callable[..., Any], *arguments: Any) -> str:
    # Without keep_unused, the text would not show which arguments the program uses.
    traced = jax.jit(function, keep_unused=True).trace(*arguments)
    return program_text(traced)


def _optimum_digest(workload: Workload) -> str | None:
    if workload.optimum is None:
        return None
    params = jax.tree.leaves(workload.optimum.params)
    return f"{float(workload.optimum.value)!r} {arrays_digest(params)}"
