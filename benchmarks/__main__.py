"""Compare the speed with other libraries, and write the ratios to RESULTS.md.

python -m benchmarks             # every row, over an hour on two cores
python -m benchmarks --quick     # a smoke run of few steps; only prints
"""

import argparse
import datetime
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import NO_CACHES

PARTS = (
    "steps",
    "sweep",
    "studies",
    "network_studies",
    "updates",
    "matrix_rules",
    "minimising",
    "networks",
    "first_steps",
    "derivatives",
    "gradbench",
    "startup",
)
PEERS = ("torch", "optimistix", "tensorflow")  # RESULTS.md is not written without them.
RESULTS = Path(__file__).parent / "RESULTS.md"


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a smoke run with few steps; its numbers mean nothing",
    )
    parser.add_argument(
        "--only",
        choices=PARTS,
        action="append",
        help="one part; may be repeated (default: all)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="file to write (default: RESULTS.md beside this, if all parts run and "
        "none fails)",
    )
    parser.add_argument(
        "--gradbench",
        type=Path,
        metavar="FOLDER",
        help="a checkout of gradbench/gradbench, whose C++ and PyTorch are timed too",
    )
    flags = parser.parse_args(words)
    if (file := flags.output) and (file.is_dir() or not file.parent.is_dir()):
        parser.error(f"--output {file}: name a file in a folder that exists.")
    return flags


def _words(flags: argparse.Namespace) -> list[str]:
    """Return the flags of the command that makes the page again, on any machine."""
    found = ["--quick"] if flags.quick else []
    found += [word for part in flags.only or () for word in ("--only", part)]
    found += ["--output", "FILE"] if flags.output else []
    return found + (["--gradbench", "FOLDER"] if flags.gradbench else [])


def _results(flags: argparse.Namespace, parts: Sequence[str]) -> Path | None:
    """Return RESULTS if all is measured beside all PEERS, and say what is missing."""
    if flags.quick or set(parts) != set(PARTS):
        return None
    if missing := [peer for peer in PEERS if find_spec(peer) is None]:
        print(
            f"{RESULTS.name} will not be written, because Python does not find "
            f"{', '.join(missing)}. The page is only printed, unless --output names a "
            "file.",
            file=sys.stderr,
        )
        return None
    if not flags.gradbench:
        print(
            f"{RESULTS.name} will lack the columns of GradBench's C++ and PyTorch, "
            "because --gradbench names no folder.",
            file=sys.stderr,
        )
    return RESULTS


def _measured(name: str, measure: Callable[[], Any], failed: list[str]) -> Any:
    """Return what a part measures, or None if it fails.

    If the part fails, the error is printed and the part's name is added to `failed`. So
    one failure does not lose the results of an hour.
    """
    try:
        return measure()
    except Exception:
        traceback.print_exc()
        failed.append(name)
        return None


def main(words: list[str] | None = None) -> None:
    """Measure, print the page, and write it."""
    flags = parse(words)
    parts = flags.only or list(PARTS)
    os.environ.update(NO_CACHES)
    import research

    research.backend.configure(x64=True)
    from benchmarks import (
        clock,
        derivatives,
        first_steps,
        gradbench,
        matrix_rules,
        minimising,
        network_studies,
        networks,
        rule_updates,
        startup,
        steps,
        studies,
        sweep,
        tables,
    )

    # What would fail after an hour fails now.
    if flags.gradbench and (fault := gradbench.fault_of(flags.gradbench)):
        sys.exit(fault)
    output = flags.output or _results(flags, parts)
    with_torch, started = find_spec("torch") is not None, time.perf_counter()
    tell = clock.tell_from_now()
    failed: list[str] = []
    modules = {"steps": steps, "sweep": sweep, "startup": startup}
    rows = {
        name: _measured(
            name, lambda m=module: m.measure(flags.quick, with_torch, tell), failed
        )
        or []
        for name, module in modules.items()
        if name in parts
    }
    alone = {
        "studies": studies,
        "network_studies": network_studies,
        "updates": rule_updates,
        "matrix_rules": matrix_rules,
        "minimising": minimising,
        "networks": networks,
        "first_steps": first_steps,
        "derivatives": derivatives,
    }
    sections = [
        _measured(
            name, lambda m=module: m.section(m.measure(flags.quick, tell)), failed
        )
        for name, module in alone.items()
        if name in parts
    ]
    if "gradbench" in parts:
        compute = lambda: gradbench.section(
            gradbench.measure(flags.quick, tell, flags.gradbench)
        )
        sections.append(_measured("gradbench", compute, failed))
    others = [section for section in sections if section is not None]
    command = " ".join(["python -m benchmarks", *_words(flags)])
    date, seconds = datetime.date.today().isoformat(), time.perf_counter() - started
    text = tables.page(
        rows.get("steps", []),
        rows.get("sweep", []),
        rows.get("startup", []),
        command,
        date,
        seconds,
        others,
    )
    print(text)
    if output and (flags.output or not failed):
        output.write_text(text, encoding="utf-8")
        print(f"Written to {output.name}.", file=sys.stderr)
    if failed:
        sys.exit(
            f"The page lacks {', '.join(failed)}, which failed as printed above."
            + ("" if flags.output else " It is only printed.")
        )


if __name__ == "__main__":
    main()
