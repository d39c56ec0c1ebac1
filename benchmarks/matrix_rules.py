"""Compare the time of a step and the state size of matrix rules with their peers.

The params are those of three networks.

python -m benchmarks.matrix_rules                      # all; six minutes on two cores
python -m benchmarks.matrix_rules --only soap --quick  # a smoke run
"""

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import clock
from benchmarks.alone import print_part
from benchmarks.network_jobs import NETWORKS
from benchmarks.rule_updates import verdict
from benchmarks.tables import Section, number, spread_words, table
from research import update_rules
from research.update_rules import _kronecker

TITLES = {"mlp": "MLP", "lstm": "LSTM", "transformer": "GPT"}
RATE = 1e-3
PULL = 1e-6  # Share of the params in each gradient of JAX.
STEPS = 20  # In one timing: twice the period of the rules that refresh every 10 steps.
ROUNDS = 9
# On which PyTorch's number of threads is chosen. A trial has one refresh.
TRIALS, TRIAL_STEPS = 3, 10
OURS = "ours"

Params = dict[str, Any]


class Runner(NamedTuple):
    """A contender on the params of one network.

    Attributes:
      advance: Takes STEPS steps, and returns after the last one.
      bytes: Size of the rule's state, in bytes.
    """

    advance: Callable[[], Any]
    bytes: int


class MatrixRow(NamedTuple):
    """One rule on one network.

    Attributes:
      network, rule, peer: Which, and beside whom ("" if no peer is known).
      milliseconds: Of a step of ours, a Spread over the rounds.
      peer_milliseconds: Of a step of the peer, or None.
      ratio: How many times as fast ours is, or None.
      state, peer_state: Bytes of state for each parameter.
    """

    network: str
    rule: str
    peer: str
    milliseconds: clock.Spread
    peer_milliseconds: clock.Spread | None
    ratio: clock.Spread | None
    state: float
    peer_state: float | None


# The rule, and its peers by name: an optax rule, or (package, class, arguments).
# The peers have the same period between two refreshes, where they have one.
CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "adam": (
        lambda: update_rules.adam(RATE),
        {
            "optax.adam": lambda: optax.adam(RATE),
            "torch.optim.Adam, fused": ("torch.optim", "Adam", {"fused": True}),
        },
    ),
    "muon": (
        lambda: update_rules.muon(RATE),
        {
            "optax.contrib.muon": lambda: optax.contrib.muon(RATE),
            "torch.optim.Muon": ("torch.optim", "Muon", {}),
        },
    ),
    "normuon": (lambda: update_rules.normuon(RATE), {}),
    "adafactor": (
        lambda: update_rules.adafactor(RATE),
        {
            "optax.adafactor": lambda: optax.adafactor(RATE),
            "torch.optim.Adafactor": ("torch.optim", "Adafactor", {}),
        },
    ),
    "soap": (
        lambda: update_rules.soap(RATE),
        {
            "pytorch_optimizer.SOAP": (
                "pytorch_optimizer",
                "SOAP",
                {"precondition_frequency": 10},
            )
        },
    ),
    "shampoo": (
        lambda: update_rules.shampoo(RATE, refresh_every=10),
        {
            "pytorch_optimizer.Shampoo": (
                "pytorch_optimizer",
                "Shampoo",
                {"preconditioning_compute_steps": 10},
            )
        },
    ),
    "shampoo, coupled Newton": (
        lambda: update_rules.shampoo(RATE, refresh_every=10, method="newton"),
        {},
    ),
    "psgd_kron": (
        lambda: update_rules.psgd_kron(RATE, jax.random.key(0)),
        {
            "pytorch_optimizer.Kron": (
                "pytorch_optimizer",
                "Kron",
                # Ours updates the factors in every step. Kron does so less often after
                # its first 500 steps.
                {"pre_conditioner_update_probability": 1.0},
            )
        },
    ),
}


def gradients_of(network: str) -> tuple[Any, Any]:
    """Return the params of a network in float32, and normal gradients of size 0.01."""
    params = NETWORKS[network][1]().init(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    drawn = [
        jnp.asarray(0.01 * rng.standard_normal(leaf.shape), leaf.dtype)
        for leaf in leaves
    ]
    return params, jax.tree.unflatten(structure, drawn)


def in_jax(rule: Any, params: Any, gradients: Any) -> Runner:
    """Build a runner of an optax.GradientTransformation, in one compiled loop."""
    rule = optax.with_extra_args_support(rule)
    advance = jax.jit(loop_of(rule))
    held = [params, jax.jit(rule.init)(params)]
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(held[1]) if _is_array(leaf))

    def run() -> None:
        held[:] = jax.block_until_ready(advance(gradients, *held))

    return Runner(run, size)


def loop_of(rule: Any) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """Return (gradients, params, state) -> (params, state) after STEPS steps.

    The gradient of a step is the given one plus PULL times the params. A gradient that
    stayed the same would let XLA compute G Gᵀ and the like once, before the loop.
    """

    def advance(gradients: Any, params: Any, state: Any) -> tuple[Any, Any]:
        def one(_: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            at, state = carry
            moving = jax.tree.map(lambda g, p: g + PULL * p, gradients, at)
            updates, state = rule.update(moving, state, at)
            return optax.apply_updates(at, updates), state

        return jax.lax.fori_loop(0, STEPS, one, (params, state))

    return advance


def _is_array(leaf: Any) -> bool:
    """Return whether a leaf of a state is numbers, not a key of random numbers."""
    return not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def in_torch(where: tuple[str, str, dict[str, Any]], gradients: Any) -> Runner:
    """Build a runner of a PyTorch optimizer, at its better number of threads.

    Leaves that it refuses are left to torch's AdamW.
    """
    from benchmarks import peers_torch

    torch = importlib.import_module("torch")

    package, name, arguments = where
    make = getattr(importlib.import_module(package), name)
    tensors = [
        torch.nn.Parameter(torch.zeros(leaf.shape))
        for leaf in jax.tree.leaves(gradients)
    ]
    for tensor, leaf in zip(tensors, jax.tree.leaves(gradients), strict=True):
        tensor.grad = torch.tensor(np.asarray(leaf))
    matrices = [t for t in tensors if t.ndim == 2] if name == "Muon" else tensors
    others = [t for t in tensors if t.ndim != 2] if name == "Muon" else []
    optimizers = [make(matrices, lr=RATE, **arguments)]
    optimizers += [torch.optim.AdamW(others, lr=RATE, fused=True)] if others else []

    def walk(steps: int) -> None:
        for _ in range(steps):
            for optimizer in optimizers:
                optimizer.step()

    # The first step makes the state.
    threads = peers_torch.choose_threads(lambda: walk(TRIAL_STEPS), TRIALS)

    def run() -> None:
        torch.set_num_threads(threads)
        walk(STEPS)

    size = sum(
        value.nbytes
        for optimizer in optimizers
        for value in _tensors(list(optimizer.state.values()), torch.Tensor)
    )
    return Runner(run, size)


def _tensors(tree: Any, kind: type) -> list[Any]:
    """Return the tensors in lists and dicts."""
    if isinstance(tree, kind):
        return [tree]
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        return [found for part in tree for found in _tensors(part, kind)]
    return []


def measure(
    quick: bool, tell: Callable[[str], Any], only: Sequence[str] | None = None
) -> list[MatrixRow]:
    """Time every rule beside each of its peers, in turns.

    Raises:
      ValueError: A name in `only` is unknown.
    """
    if unknown := [name for name in only or () if name not in CASES]:
        raise ValueError(
            f"there is no rule {', '.join(unknown)}; known: {'; '.join(CASES)}."
        )
    rows = []
    for network in ["mlp"] if quick else TITLES:
        params, gradients = gradients_of(network)
        entries = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
        for rule in only or CASES:
            tell(f"matrix rules: {rule} on {network}")
            rounds = 2 if quick else ROUNDS
            rows += _rows(network, rule, params, gradients, entries, rounds)
    return rows


def _rows(
    network: str, rule: str, params: Any, gradients: Any, entries: int, rounds: int
) -> list[MatrixRow]:
    make, peers = CASES[rule]
    absent = [
        name
        for name, peer in peers.items()
        if isinstance(peer, tuple) and not _is_there(*peer[:2])
    ]
    runners = {OURS: in_jax(make(), params, gradients)}
    for name, peer in peers.items():
        if name not in absent:
            runners[name] = (
                in_torch(peer, gradients)
                if isinstance(peer, tuple)
                else in_jax(peer(), params, gradients)
            )
    for runner in runners.values():
        runner.advance()
    seconds = clock.take_turns(
        {name: runner.advance for name, runner in runners.items()}, rounds
    )
    of_step = {
        name: clock.spread(1e3 * times / STEPS) for name, times in seconds.items()
    }
    share = {name: runner.bytes / entries for name, runner in runners.items()}
    row = MatrixRow(network, rule, "", of_step[OURS], None, None, share[OURS], None)
    rows = [
        row._replace(
            peer=name,
            peer_milliseconds=of_step[name],
            ratio=clock.paired_ratio(seconds[name], seconds[OURS]),
            peer_state=share[name],
        )
        for name in runners
        if name != OURS
    ]
    rows += [row._replace(peer=f"{name}, not installed") for name in absent]
    return rows or [row]


def _is_there(package: str, name: str) -> bool:
    try:
        return hasattr(importlib.import_module(package), name)
    except ImportError:
        return False


def residuals() -> list[list[Any]]:
    """Return residuals |X⁴ A - I| of inverse fourth roots, by size and condition."""
    rows = []
    rng = np.random.default_rng(0)
    for n in (64, 256):
        basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
        for condition in (1e1, 1e3, 1e5):
            matrix = jnp.asarray(
                (basis * np.geomspace(1.0, 1 / condition, n)) @ basis.T, jnp.float32
            )
            rows.append(
                [n, f"{condition:.0e}"]
                + [
                    f"{_largest_residual(root(matrix, 4), matrix):.0e}"
                    for root in (_kronecker.by_eigenvalues, _kronecker.by_newton)
                ]
            )
    return rows


def _largest_residual(root: Any, matrix: Any) -> float:
    return float(jnp.max(_kronecker.root_residual(root, matrix, 4)))


def section(rows: list[MatrixRow]) -> Section:
    """Describe the rows in a section of the page."""
    timed = [row for row in rows if row.ratio]
    found = [verdict(row.ratio) for row in timed if row.ratio]
    counted = ", ".join(
        f"{word} in {found.count(word)}" for word in ("faster", "level", "slower")
    )
    answer = (
        "A step of a matrix rule, of Adam or of Adafactor, beside a peer's in "
        f"{len(timed)} pairs: {counted}."
    )
    columns = [
        "network",
        "rule",
        "ms a step",
        "bytes of state a parameter",
        "peer",
        "ms a step",
        "bytes a parameter",
        "ours is faster by",
    ]
    lines = [
        [
            TITLES[row.network],
            row.rule,
            number(row.milliseconds.median),
            number(row.state),
            row.peer or "none is known",
            number(row.peer_milliseconds.median) if row.peer_milliseconds else "",
            number(row.peer_state) if row.peer_state is not None else "",
            spread_words(row.ratio) if row.ratio else "",
        ]
        for row in rows
    ]
    text = (
        f"{table(columns, lines)}\n\nA step is the update of all params of the network "
        f"from given gradients, in float32; {STEPS} steps are timed at once, so a "
        "refresh every 10 steps counts with its share. torch.optim.Muon takes "
        "matrices; the other leaves are left to torch's fused AdamW. It multiplies "
        "matrices in bfloat16, which a processor without such instructions emulates. "
        "PyTorch has one or two threads, whichever is faster in a trial. The ratio is "
        "the median over the rounds, with the interval that holds it in 95 of 100 runs."
        "\n\nHow exact are the inverse roots of Shampoo? The largest entry of "
        "|X⁴ A - I| in float32, for a random matrix A with a given condition:\n\n"
        + table(["size", "condition", "eigenvalues", "coupled Newton"], residuals())
    )
    missed = [
        f"{TITLES[row.network]}, {row.rule}: a step takes "
        f"{number(1 / row.ratio.median)} times that of {row.peer}"
        for row in timed
        if row.ratio and verdict(row.ratio) == "slower"
    ]
    return Section("A step of a matrix rule", answer if timed else "", text, missed)


if __name__ == "__main__":
    print_part(__doc__, measure, section, "a rule")
