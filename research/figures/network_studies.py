"""Draw the pictures of a study on networks: steps for an equal loss, and curves."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from research import figures
from research.figures.study_looks import RULE_COLOURS, plain
from research.statistics.measured import at_most

Numbers = Mapping[str, Any]


def draw_network_study(
    numbers: Numbers, arrays: Mapping[str, np.ndarray]
) -> dict[str, figures.Picture]:
    """Draw the pictures of a finished study, which compares update rules on networks.

    Args:
      numbers, arrays: The `numbers` and the `arrays` of the study's result.
    Returns:
      Two pictures by name. "steps" shows how many steps each rule needs for the same
      loss as the baseline, and "curves" shows the validation loss during training. The
      baseline, one of the rules, is black.
    """
    colours = colours_of(numbers)
    return {
        "steps": draw_steps(numbers, colours),
        "curves": draw_curves(numbers, arrays, colours),
    }


def colours_of(numbers: Numbers) -> dict[str, str]:
    """Return the colour of each rule of a study, as a dict from names to colours.

    The baseline is the first rule of the dict. `numbers` is a field of the study's
    result.
    """
    baseline = numbers["baseline"]
    rules = [baseline, *(rule for rule in numbers["rules"] if rule != baseline)]
    return {rule: RULE_COLOURS[i % len(RULE_COLOURS)] for i, rule in enumerate(rules)}


def draw_steps(numbers: Numbers, colours: Mapping[str, str]) -> figures.Picture:
    """Draw how many steps each rule needs for the same loss as the baseline.

    The number of steps of a rule is divided by the baseline's number of steps. Each
    rule except the baseline has one dot with an interval for each network. If there are
    several networks, another dot with an interval stands for all networks together. If
    the loss of the baseline on a network hardly depends on the number of steps, the
    ratio cannot be determined. The dots for this network, and those for all networks
    together, are then missing. `numbers` is a field of the study's result, and
    `colours` has the colour of each rule.
    """
    rules = [rule for rule in colours if rule != numbers["baseline"]]
    networks = numbers["networks"]
    figure, axes = figures.new_figure(
        width=4.6, height=1.8 + 0.22 * len(rules) * (len(networks) + 1)
    )
    panel, places, named = axes[0, 0], [], set()
    groups = _groups(numbers)
    for row, (_, compared) in enumerate(groups):
        by_rule = {one["rule"]: one for one in compared}
        for index, rule in enumerate(rules):
            one = by_rule[rule]
            if one["steps"] is None:  # The loss of the baseline does not change.
                continue
            place = row * (len(rules) + 1) + index
            label = f"_{rule}" if rule in named else plain(rule)
            _draw_interval(panel, one, place, colours[rule], label)
            named.add(rule)
        places.append(row * (len(rules) + 1) + (len(rules) - 1) / 2)
    panel.axvline(1, color=colours[numbers["baseline"]], lw=1.2)
    panel.set_yticks(places, [plain(label) for label, _ in groups])
    panel.invert_yaxis()
    _scale_steps(panel)
    panel.set_xlabel(
        "steps for the same validation loss,\ndivided by those of "
        f"{plain(numbers['baseline'])}"
    )
    panel.grid(axis="y", visible=False)
    panel.margins(y=0.12)
    if named:
        figure.legend(loc="outside lower center", ncols=3)
    caption = _steps_caption(numbers)
    return figures.Picture("How many steps does a rule save?", caption, figure)


def _groups(numbers: Numbers) -> list[tuple[str, list[Numbers]]]:
    """Return pairs (label, comparisons): one for each network, and one for all.

    If there is only one network, the pair for all networks is left out.
    """
    groups = [
        (network, [one for one in numbers["comparisons"] if one["network"] == network])
        for network in numbers["networks"]
    ]
    return [*groups, ("all", numbers["overall"])] if len(groups) > 1 else groups


def _draw_interval(
    panel: Axes, one: Mapping[str, Any], place: float, colour: str, label: str
) -> None:
    """Draw the ratio of steps of a comparison as a dot, with its interval."""
    ends = [one["steps_low"], one["steps_high"]]
    panel.plot(ends, [place] * 2, color=colour, lw=2)
    panel.plot(one["steps"], place, "o", color=colour, label=label)


def _scale_steps(panel: Axes) -> None:
    """Make the horizontal axis logarithmic, with round numbers."""
    panel.set_xscale("log")
    ticks = [tick for tick in (0.3, 0.5, 0.7, 1, 1.4, 2, 3) if _inside(panel, tick)]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()


def _steps_caption(numbers: Numbers) -> str:
    words = "; ".join(
        f"{one['rule']} {at_most(one)}{one['steps']:.2f} [{one['steps_low']:.2f}, "
        f"{one['steps_high']:.2f}]"
        for one in numbers["overall"]
        if one["steps"] is not None
    )
    unknown = "not measured, because the ratio is not known on every network"
    return (
        "Steps that a rule needs for the same validation loss, divided by the steps of "
        f"{numbers['baseline']}, with {100 * numbers['protocol']['level']:g} % "
        f"intervals over searches and seeds. Over all networks: {words or unknown}. A "
        "value below 1 saves steps. Values end at 0.5 and 2, the range of lengths of "
        "the baseline."
    )


def _inside(panel: Axes, tick: float) -> bool:
    low, high = panel.get_xlim()
    return low <= tick <= high


def draw_curves(
    numbers: Numbers, arrays: Mapping[str, np.ndarray], colours: Mapping[str, str]
) -> figures.Picture:
    """Plot the validation loss of each rule against the passes over the data.

    In older studies, the passes are not known. The horizontal axis then has the number
    of the evaluation instead.

    For each rule and network, the study ran independent searches for hyper-parameters.
    Each search chose values of the hyper-parameters, and the trainings with these
    values are drawn. Each network has one panel. The line of a rule is the median over
    searches and seeds. The band around the line goes from the 10 % to the 90 %
    quantile. `numbers` and `arrays` are fields of the study's result, and `colours` has
    the colour of each rule.
    """
    networks = numbers["networks"]
    columns = min(3, len(networks))
    rows = -(-len(networks) // columns)
    figure, axes = figures.new_figure(
        rows, columns, width=4.2 * columns, height=3.4 * rows
    )
    ends = []
    passes = {one["network"]: one.get("passes") for one in numbers["cells"]}
    for panel, network in zip(axes.flat, networks, strict=False):
        label = "passes over the data" if passes[network] else "evaluation"
        for rule, colour in colours.items():
            curves = arrays[f"{network}/{rule}/curves"]
            middle, low, high = np.quantile(
                curves, [0.5, 0.1, 0.9], axis=0, method="inverted_cdf"
            )
            figures.band(
                panel,
                passes[network] or np.arange(len(middle)),
                middle,
                low,
                high,
                color=colour,
                label=plain(rule),
            )
            ends.append(f"{rule} {middle[-1]:.3g} on {network}")
        panel.set(title=plain(network), xlabel=label, yscale="log")
    for panel in list(axes.flat)[len(networks) :]:
        panel.axis("off")
    axes[0, 0].set_ylabel("validation loss")
    axes[0, 0].legend()
    caption = (
        "Validation loss of the choices of all searches: median over searches and "
        "seeds, with a band from the 10 % to the 90 % quantile. It ends at: "
        f"{'; '.join(ends)}."
    )
    return figures.Picture("How the chosen trainings descend", caption, figure)
