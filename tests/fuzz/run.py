"""Longer runs of the fuzzer, with counts per function and per class of error.

python tests/fuzz/run.py --seed 3 --cases 30000 [--only losses.] [--show unclear]
"""

import argparse
import os
import sys
import tempfile

os.environ.setdefault("MPLBACKEND", "agg")

from research import backend


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--only", default="", help="names of functions begin with this")
    parser.add_argument(
        "--show", default="", help="print each case of a kind that begins with this"
    )
    words = parser.parse_args()
    backend.configure(devices=1, pool=2, x64=True)
    import fuzzing
    import public_calls

    if words.only:
        chosen = tuple(
            call
            for call in public_calls.calls()
            if call.name.startswith(tuple(words.only.split(",")))
        )
        fuzzing.calls = lambda: chosen
    os.chdir(tempfile.mkdtemp())  # A wrong path may be that of a new folder.
    cases = fuzzing.sample(words.seed, words.cases)
    outcomes, seconds = fuzzing.timed(cases)
    for outcome in outcomes:
        if words.show and outcome.kind.startswith(tuple(words.show.split(","))):
            print(f"{outcome.kind}: {outcome.case}: {outcome.error}: {outcome.message}")
    print(fuzzing.table(outcomes))
    print(f"{seconds:.0f} s of a processor")
    sys.stdout.flush()
    for clean in public_calls.functions_at_exit:
        clean()


if __name__ == "__main__":
    main()
