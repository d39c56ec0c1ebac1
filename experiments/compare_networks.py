"""Which rule trains these networks to the lower validation loss, and how many steps
does it save?

Every rule gets the same number of independent searches for its peak rate, its warm-up
and its kind of decay. Every training has the same length, and the learning rate is zero
at its end. The score is the validation loss at the end. The test accuracy is reported
and never used. The baseline is also trained for 0.5 to 2 times as many steps. So the
answer can also say how many steps a rule needs for the same loss, as a multiple of the
baseline's steps.

    # Muon, Lion and NAdamW beside AdamW on a deep autoencoder.
    python experiments/compare_networks.py
    python experiments/compare_networks.py --rule muon adamw --network gpt_characters
    # More rules, and all networks that need no download.
    python experiments/compare_networks.py --full

Networks are those of research/workloads/networks.py: mlp_digits, cnn_digits,
gru_digits, gru_vowels (downloaded), gpt_characters, autoencoder_digits. "muon" is Muon
for the matrices and Adam for the other leaves. The rates of both are searched.

Expected number (`EXPECTED`): the validation loss of Muon divided by that of AdamW over
all networks of the default run.
"""

import re
import sys
from collections.abc import Mapping
from typing import Any

import research
from research.cli import compare_networks as study  # The command `descent networks`.

EXPECTED = {"muon_over_adamw": (0.5, 1.3)}

Config = study.Config
FULL = study.FULL
complete = study.complete
run = study.run
share = study.share
draw = study.draw


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

from experiments.reports import _dots as dots
from research.figures import network_studies


def draw_reference(reference: Mapping[str, Any]) -> research.figures.Picture:
    """Draw the steps for an equal loss of a stored reference, of one network."""
    baseline = reference["numbers"]["baseline"]
    rows = {row["rule"]: row for row in dots.rows(reference)}
    compared = [
        {"rule": rule, "network": rows[rule]["network"]}
        | dict(
            zip(
                ("steps", "steps_low", "steps_high"),
                map(float, re.findall(r"[\d.]+", words(rows[rule], baseline))),
                strict=True,
            )
        )
        for rule in reference["numbers"]["rules"]
        if rule != baseline
    ]
    numbers = reference["numbers"] | {
        "comparisons": compared,
        "overall": compared,
        "protocol": {"level": 0.95},
    }
    picture = network_studies.draw_steps(numbers, network_studies.colours_of(numbers))
    return picture._replace(caption=f"{picture.caption} {dots.SOURCE}")


def words(row: Mapping[str, Any], baseline: str) -> str:
    """Return the steps of a row and their interval, as the table shows them."""
    column = f"steps for equal loss, times {baseline}'s"
    return f"{row[column]} {row['interval of steps']}"
