"""Compare the speed with other libraries, and write the ratios to RESULTS.md.

python -m benchmarks             # every row, 66 minutes on two cores
python -m benchmarks --quick     # a smoke run of few steps; prints, writes nothing
"""

import argparse
import datetime
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path

PARTS = (
    "steps",
    "sweep",
    "studies",
    "network_studies",
    "updates",
    "matrix_rules",
    "minimising",
    "networks",
    "derivatives",
    "gradbench",
    "startup",
)
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
        help="file to write (default: RESULTS.md beside this, when all is run)",
    )
    parser.add_argument(
        "--gradbench",
        type=Path,
        metavar="FOLDER",
        help="a checkout of gradbench/gradbench, whose C++ and PyTorch are timed too",
    )
    return parser.parse_args(words)


def _words(flags: argparse.Namespace) -> list[str]:
    """Return the flags of the command that makes the page again, on any machine."""
    found = ["--quick"] if flags.quick else []
    found += [word for part in flags.only or () for word in ("--only", part)]
    found += ["--output", "FILE"] if flags.output else []
    return found + (["--gradbench", "FOLDER"] if flags.gradbench else [])


def main(words: list[str] | None = None) -> None:
    """Measure, print the page, and write it."""
    flags = parse(words)
    parts = flags.only or list(PARTS)
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = (
        "1"  # A compile time is one of compiling.
    )
    import research

    research.backend.configure(x64=True)
    from benchmarks import (
        clock,
        derivatives,
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

    with_torch, started = find_spec("torch") is not None, time.perf_counter()
    tell = clock.tell_from_now()
    modules = {"steps": steps, "sweep": sweep, "startup": startup}
    rows = {
        name: module.measure(flags.quick, with_torch, tell) if name in parts else []
        for name, module in modules.items()
    }
    alone = {
        "studies": studies,
        "network_studies": network_studies,
        "updates": rule_updates,
        "matrix_rules": matrix_rules,
        "minimising": minimising,
        "networks": networks,
        "derivatives": derivatives,
    }
    others = [
        module.section(module.measure(flags.quick, tell))
        for name, module in alone.items()
        if name in parts
    ]
    if "gradbench" in parts:
        checked = gradbench.measure(flags.quick, tell, flags.gradbench)
        others.append(gradbench.section(checked))
    command = " ".join(["python -m benchmarks", *_words(flags)])
    date, seconds = datetime.date.today().isoformat(), time.perf_counter() - started
    text = tables.page(
        rows["steps"], rows["sweep"], rows["startup"], command, date, seconds, others
    )
    print(text)
    with_all = all(find_spec(peer) for peer in ("torch", "optimistix", "tensorflow"))
    complete = set(parts) == set(PARTS) and not flags.quick and with_all
    if output := flags.output or (RESULTS if complete else None):
        output.write_text(text, encoding="utf-8")
        print(f"Written to {output.name}.", file=sys.stderr)


if __name__ == "__main__":
    main()
