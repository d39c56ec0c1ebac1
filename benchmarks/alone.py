"""Run one part of the benchmarks from its own command line."""

import argparse
from collections.abc import Callable
from typing import Any

from benchmarks import clock


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
    parser.add_argument("--only", action="append", help=what)
    parser.add_argument(
        "--synchronous",
        action="store_true",
        help="JAX runs every program in the calling thread "
        "(jax_cpu_enable_async_dispatch is off)",
    )
    flags = parser.parse_args()
    import jax

    import research
    from benchmarks.tables import machine

    research.backend.configure(x64=True)
    if flags.synchronous:
        # Before the first computation, because a CPU client reads it when it is made.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    found = section(measure(flags.quick, clock.tell_from_now(), flags.only))
    print(
        "\n\n".join(
            [
                found.answer,
                machine(),
                found.text,
                "\n".join(f"- {line}" for line in found.missed),
            ]
        )
    )
