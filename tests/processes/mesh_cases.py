"""Compute the cases of test_mesh.py, in a process of its own with eight devices.

python -m tests.processes.mesh_cases '{}' parts refused
"""

import json
import math
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np

from research import backend, descent, samplers, update_rules
from research.descent._collectives import AXIS, gather, scatter_sum, spread, total
from research.descent._mesh_loop import lower_on_mesh
from research.types import Batch
from tests.processes import training

COLLECTIVES = r" = (.*) (all-gather|all-reduce|all-to-all|reduce-scatter)(?:-start)?\("
generator = np.random.default_rng(0)
DATA = Batch(generator.normal(size=(16, 8)), generator.normal(size=16))
# Leaves that eight devices divide along the first axis, the second, and along none.
START = {
    "first": generator.normal(size=(8, 3)),
    "second": generator.normal(size=(3, 16)),
    "odd": generator.normal(size=(3,)),
    "scalar": np.array(0.5),
}
SAMPLER = samplers.minibatch(16, 8)
ROWS = generator.normal(size=(8, 5))
PROGRAMS = {
    "data parallel": ("heavy_ball", {}),
    "data parallel, fast": ("heavy_ball", {"exact": False}),
    "fully sharded": ("heavy_ball", {"shard_params": True}),
    "fully sharded, fast": ("heavy_ball", {"shard_params": True, "exact": False}),
    "fully sharded, a rule on whole arrays": ("lars", {"shard_params": True}),
}


def objective(params, batch):
    hidden = batch.x @ params["first"] + params["odd"]
    found = (hidden @ params["second"]).sum(1) * params["scalar"]
    return jnp.mean((found - batch.y) ** 2)


def collectives(rule, options):
    """Count the collectives in the compiled program of a step, and their bytes.

    Each device receives all parts of a result but its own; in an all-reduce, twice.
    """
    lowered = lower_on_mesh(
        objective,
        update_rules.UPDATE_RULES[rule](0.1),
        DATA,
        SAMPLER,
        START,
        jax.random.key(1),
        noisy=False,
        mesh=descent.mesh(8, **options),
    )
    found = re.findall(COLLECTIVES, lowered.program.compile().as_text())
    names = [name for _, name in found]
    shares = {
        "all-reduce": 2 / 8,
        "reduce-scatter": 1,
    }  # Of the results, for each other.
    received = sum(
        bytes_of(shapes) * 7 * shares.get(name, 1 / 8) for shapes, name in found
    )
    counted = {name: names.count(name) for name in sorted(set(names))}
    rule = update_rules.UPDATE_RULES[rule](0.1)
    return counted, received, descent.bytes_per_step(rule, START, 8, **options)


def bytes_of(shapes):
    """Return the bytes of the arrays in the type of a result, such as f64[8,3]{1,0}."""
    return sum(
        int(bits) // 8 * math.prod(map(int, filter(None, sizes.split(","))))
        for bits, sizes in re.findall(r"\bf(\d+)\[([\d,]*)\]", shapes)
    )


def on_devices(f, *arguments):
    """Return the results of f on each device, which gets its row of ROWS."""
    mesh = descent.mesh(8).devices
    spec = jax.sharding.PartitionSpec
    run = jax.shard_map(
        lambda row, *rest: jax.tree.map(lambda a: a[None], f(row[0], *rest)),
        mesh=mesh,
        in_specs=(spec(AXIS), *[spec()] * len(arguments)),
        out_specs=spec(AXIS),
        check_vma=False,
    )
    return jax.jit(run)(ROWS, *arguments)


def derivatives(exact):
    """Return the errors of the derivatives of a mean over devices."""
    x = jnp.linspace(0.2, 0.9, 5)
    local = lambda x, row: jnp.sum(jnp.sin(x * row) ** 3) + x[0] * x[1] * row[2]

    def mean_on(row):
        def mean(x):
            (x,) = spread([x], exact)
            return total([local(x, row) / 8], exact)[0]

        return mean

    whole = lambda x: jnp.mean(jax.vmap(lambda row: local(x, row))(ROWS))

    def all_of(f, x):
        many = jnp.outer(jnp.arange(3.0), x)
        return f(x), jax.hessian(f)(x), jax.vmap(jax.grad(f))(many)

    found = on_devices(lambda row, x: all_of(mean_on(row), x), x)
    wanted = all_of(whole, x)
    return [
        float(jnp.max(jnp.abs(a - b[None]))) for a, b in zip(found, wanted, strict=True)
    ]


def in_order():
    """Return whether each kind of exact sum adds in the order of the devices."""
    large = jnp.asarray(generator.normal(size=(8, 2**15 + 3)), jnp.float32)
    wanted = large[0]
    for row in large[1:]:
        wanted = wanted + row

    def sums(row, large):
        own = large[jax.lax.axis_index(AXIS)]
        small, joined, whole = total([own[:7], own[7:30], own], True)
        return small, joined, whole

    small, joined, whole = on_devices(sums, large)
    same = lambda found, wanted: bool((found == wanted).all())
    other = large.sum(0)
    return {
        "small": same(small, wanted[:7]) and same(joined, wanted[7:30]),
        "large": same(whole, wanted),
        "another order": same(other, wanted),
    }


def parts():
    """Return whether arrays that are scattered and gathered again are their sums."""
    arrays = [
        jnp.asarray(generator.integers(-9, 9, shape), dtype)  # Sums are exact.
        for shape, dtype in (
            ((8, 3), "float32"),
            ((3, 16, 2), "float32"),
            ((2**15, 8), "float32"),
            ((24,), "bfloat16"),
            ((16, 1), "float64"),
        )
    ]
    axes = [0, 1, 0, 0, 0]

    def there_and_back(row, arrays):
        del row
        return gather(scatter_sum(arrays, axes, True), axes)

    found = on_devices(there_and_back, arrays)
    return [bool((a == 8 * b).all()) for a, b in zip(found, arrays, strict=True)]


def refused():
    """Return the messages of wrong arguments."""
    rule = update_rules.heavy_ball(0.1)
    problem = {"params": START, "key": jax.random.key(1), "num_epochs": 1}
    sampler = samplers.minibatch(16, 6)
    calls = [
        lambda: descent.mesh(9),
        lambda: descent.mesh(0),
        lambda: descent.train(
            objective, rule, DATA, sampler, mesh=descent.mesh(8), **problem
        ),
        lambda: descent.train(
            objective,
            rule,
            DATA,
            SAMPLER,
            mesh=descent.mesh(8),
            devices=2,
            **problem,
        ),
        lambda: descent.train(objective, rule, DATA, SAMPLER, mesh=8, **problem),
    ]
    words = []
    for call in calls:
        try:
            call()
        except (TypeError, ValueError) as error:
            words.append(str(error))
    return words


def main():
    """Print what the command line asks for."""
    backend.configure(devices=8, pool=8)
    options = training.DEFAULTS | json.loads(sys.argv[1])
    parts_of = {
        "resumed": lambda: training.fit(options),
        "whole": lambda: training.fit(options | {"folder": None}),
        "derivatives": lambda: derivatives(True),
        "in order": in_order,
        "parts": parts,
        "refused": refused,
    }
    for name, case in PROGRAMS.items():
        parts_of[name] = lambda case=case: collectives(*case)
    print(json.dumps({name: parts_of[name]() for name in sys.argv[2:]}))


if __name__ == "__main__":
    main()
