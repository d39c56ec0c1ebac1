"""Compile equal programs only once in a process."""

import collections
import hashlib
import threading
from collections.abc import Callable
from typing import Any

import jax

MOST = 64  # Programs that are kept. The least recently used ones go first.


class _Entry:
    """A program that a thread compiles, while other threads may wait for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.program: Callable[..., Any] | None = None


_entries: collections.OrderedDict[tuple, _Entry] = collections.OrderedDict()
_lock = threading.Lock()


def forget() -> None:
    """Forget all programs, so that the next ones are compiled, as in a new process."""
    with _lock:
        _entries.clear()


def compile_once(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """Return `jax.jit(function)`, compiled for these arguments.

    Each call of `compile_once` traces the function. An earlier call may have compiled
    an equal program: one with the same operations, constants, shapes, dtypes, devices
    and level of optimisation. Then the earlier compiled program is returned. Trainings
    with different update rules therefore share the programs that do not depend on the
    rule. Equal programs give equal bits. The 64 programs that were used last are kept.
    Programs are compared by their text, which JAX writes before it compiles them. If
    this text leaves out the values of constants, or the code of Python functions that
    the program calls, the program is not shared.

    Args:
      function: Pure function of arrays.
      *arguments: Arguments of the function. If arrays among them lie on a device, the
        program runs there.
    Returns:
      The compiled program, a function of such arguments.
    """
    # Without keep_unused, the text would not show which arguments the program uses.
    traced = jax.jit(function, keep_unused=True).trace(*arguments)
    lowered = traced.lower()
    text = lowered.as_text()
    # The text only counts the constants and the Python functions that it names so.
    if "jax.const" in text or "callback" in text:
        return lowered.compile()
    devices = {
        (device.platform, device.id)
        for leaf in jax.tree.leaves(arguments)
        if isinstance(leaf, jax.Array)
        for device in leaf.devices()
    }
    # A weak type is not part of the text.
    kinds = [
        (a.shape, a.dtype, a.weak_type)
        for a in (*traced.jaxpr.in_avals, *traced.jaxpr.out_avals)
    ]
    key = (
        hashlib.sha256(text.encode()).digest(),
        lowered.in_tree,
        jax.tree.structure(lowered.out_info),
        tuple(kinds),
        frozenset(devices),
        jax.config.read("jax_disable_most_optimizations"),
    )
    with _lock:
        entry = _entries.setdefault(key, _Entry())
        _entries.move_to_end(key)
        if len(_entries) > MOST:
            _entries.popitem(last=False)
    with entry.lock:
        if entry.program is None:
            entry.program = lowered.compile()
        return entry.program
