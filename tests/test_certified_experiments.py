"""Laws of the experiments on proved critical points and proved rates."""

import pytest

from experiments import certified_landscape, safe_rate
from research import cli, figures, runs

SMALL = {
    certified_landscape: certified_landscape.Config(starts=2),
    safe_rate: safe_rate.Config(starts=8, steps=50, boxes=4096),
}


@pytest.mark.thorough("the proofs, which tests/derivatives/test_certified.py has too")
@pytest.mark.parametrize("experiment", SMALL)
def test_expected_numbers_hold_and_figures_are_drawn(experiment, tmp_path):
    findings = cli.conduct(experiment, SMALL[experiment], lambda *words: None)
    for name, (low, high) in experiment.EXPECTED.items():
        assert low <= findings.numbers[name] <= high, name
    result = runs.result.read_result(*runs.result.result_bytes(findings))
    for name, picture in cli.report_of(experiment).draw(result).items():
        assert figures.save(picture, tmp_path, name).still.stat().st_size > 1000


@pytest.mark.parametrize(
    ("experiment", "changed"),
    [
        (certified_landscape, {"starts": 0}),
        (certified_landscape, {"seconds": 0.0}),
        (safe_rate, {"boxes": 0}),
    ],
)
def test_settings_that_make_no_sense_are_refused(experiment, changed):
    with pytest.raises(ValueError, match=f"{next(iter(changed))}"):
        experiment.run(experiment.Config(**changed))
