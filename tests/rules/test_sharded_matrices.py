"""Rules of matrices on params that are split over two devices; a process of its own has
them.
"""

import os
import subprocess
import sys

import pytest

CHILDREN_COMPILE_QUICKLY = True  # tests/conftest.py

SCRIPT = """
import sys

import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from research import update_rules as rules

mesh = Mesh(np.array(jax.devices()), ("d",))
split = lambda a: jax.device_put(a, NamedSharding(mesh, PartitionSpec("d")))
# A square: the square of a gradient with 8 rows and 6 columns has a null space of two
# dimensions, and rounding alone chooses SOAP's eigenvectors in it.
w = jnp.asarray(np.random.default_rng(0).standard_normal((6, 6)), "float32")
x = {"w": w, "b": jnp.ones(4)}
# Two gradients: in the eigenvectors of its own square, a gradient is diagonal, and SOAP
# would divide the rounding errors beside the diagonal by themselves.
first = jax.tree.map(jnp.cos, x)
second = jax.tree.map(lambda a: jnp.sin(3 * a), x)
for name, rule in {
    "muon": rules.muon(0.1, ns_coeffs="polar_express", consistent_rms=0.2),
    "normuon": rules.normuon(0.1),
    "hyperball": rules.hyperball(0.1, rules.muon),
    "shampoo": rules.shampoo(0.1),
    "soap": rules.soap(0.1, refresh_every=1),
    "kl_soap": rules.kl_soap(0.1, refresh_every=1),
    "psgd_kron": rules.psgd_kron(0.1, jax.random.key(0)),
}.items():
    if name not in sys.argv[1:]:
        continue
    update = jax.jit(rule.update)

    def stepped(first, second, x):
        _, state = update(first, rule.init(x), x)
        return update(second, state, x)[0]

    whole = stepped(first, second, x)
    found = stepped(*(jax.tree.map(split, tree) for tree in (first, second, x)))
    distance = lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).max()
    apart = jax.tree.map(distance, whole, found)
    print(name, len(found["w"].sharding.device_set), float(max(jax.tree.leaves(apart))))
"""


FEW = ["muon"]
OTHERS = ["normuon", "hyperball", "shampoo", "soap", "kl_soap", "psgd_kron"]


@pytest.mark.on_ci("a process of its own; nothing shorter shows this")
@pytest.mark.parametrize(
    "names",
    [FEW, pytest.param(OTHERS, marks=pytest.mark.thorough("the other rules"))],
    ids=" ".join,
)
def test_params_that_are_split_over_devices_move_as_whole_ones_do(names):
    flags = "--xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *names],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, *_ in rows] == names
    for name, devices, apart in rows:
        assert devices == "2", name
        assert float(apart) < 1e-5, name  # The steps are about 0.1; eps is 1e-7.
