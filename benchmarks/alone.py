"""Run one part of the benchmarks from its own command line."""

import argparse
import os
from collections.abc import Callable
from typing import Any

from benchmarks import NO_CACHES, clock


def print_part(
    doc: str | None, measure: Callable[..., Any], section: Callable[..., Any], what: str
) -> None:
    """Measure and print a part, as the command line of this process asks.

    Args:
      doc: The module's docstring, whose first paragraph the help shows.
      measure, section: The part's own.
      what: Says what --only names.
    """
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run; its numbers mean nothing"
    )
    parser.add_argument(
        "--only", action="append", help=f"{what}; may be repeated (default: all)"
    )
    parser.add_argument(
        "--synchronous",
        action="store_true",
        help="JAX runs every program of this process in the calling thread "
        "(jax_cpu_enable_async_dispatch is off)",
    )
    flags = parser.parse_args()
    os.environ.update(NO_CACHES)  # For the processes that the part starts.
    import jax

    import research
    from benchmarks.tables import machine

    research.backend.configure(x64=True)
    jax.config.update("jax_enable_compilation_cache", False)
    if flags.synchronous:
        # Before the first computation, because a CPU client reads it when it is made.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    found = section(measure(flags.quick, clock.tell_from_now(), flags.only))
    missed = "\n".join(f"- {line}" for line in found.missed)
    parts = (found.answer, machine(), found.text, missed)
    print("\n\n".join(filter(None, parts)))
