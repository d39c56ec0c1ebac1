"""Report of which_rule_networks: answer, tables and figures."""

from typing import Any

import numpy as np

import research
from experiments.which_rule_networks import USUAL
from research.comparison import network_tables
from research.comparison.tables import short
from research.statistics.measured import at_most

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8F98")
MARKERS = "os^Dv<>"
WIDTH = 5.2  # Inches; the text is then readable on a narrow screen.
SHOWN = 4  # Maximum number of rules that a sentence names.


def answer(findings: research.runs.Findings) -> str:
    """Say which rule to use first, which are as good, and what AdamW and SGD do."""
    numbers = findings.numbers
    rows, networks = numbers["by_rule"], numbers["networks"]
    by_name = {row["rule"]: row for row in rows}
    own = by_name[numbers["first"]]
    where = networks[0] if len(networks) == 1 else f"{len(networks)} networks"
    sentences = [
        f"Use {own['rule']} first. On {where} its rank is {own['rank']} "
        f"[{own['rank_low']}, {own['rank_high']}] of {len(rows)}."
    ]
    for verdict, words in (
        ("better", "On the reporting seeds, {} even lower losses"),
        ("undecided", "{} cannot be distinguished from it"),
    ):
        names = [row["rule"] for row in rows if row["beside_first"] == verdict]
        if names:
            verb = " reach" if len(names) > 1 else " reaches"
            verb = verb if verdict == "better" else ""
            sentences.append(words.format(few(names) + verb) + ".")
    usual = [rule for rule in (own["rule"], "heavy_ball") if rule in by_name]
    sentences += [
        beside_usual(by_name[rule]) for rule in dict.fromkeys(usual) if rule != USUAL
    ]
    sentences.append(first_by_network(numbers))
    factors = [one["detectable"] for one in numbers["overall"]]
    sentences.append(
        "The smallest factor of the loss that this study could detect is "
        f"{min(factors):.3g} to {max(factors):.3g}, depending on the rule."
    )
    return " ".join(sentences)


def few(names: list[str]):
    """Name at most `SHOWN` rules."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def beside_usual(row: dict[str, Any]):
    """Compare a rule with AdamW in one sentence."""
    steps = ""
    if row["steps"] is not None:
        steps = (
            f", and needs {at_most(row)}{short(row['steps'])} "
            f"[{short(row['steps_low'])}, "
            f"{short(row['steps_high'])}] times the steps of {USUAL} for the same "
            "loss"
        )
    return (
        f"{row['rule']} reaches {short(row['loss_ratio'])} [{short(row['loss_low'])}, "
        f"{short(row['loss_high'])}] times the validation loss of {USUAL}{steps}."
    )


def first_by_network(numbers: dict[str, Any]):
    """Say in one sentence which rule is first on each network."""
    places = {}
    for network, rule in numbers["first_on"].items():
        places.setdefault(rule, []).append(network)
    if len(places) == 1:
        return f"{next(iter(places))} comes first on every network."
    found = "; ".join(f"{rule} on {', '.join(on)}" for rule, on in places.items())
    return f"No rule comes first everywhere: {found}."


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the table of rules, and the tables of losses and of choices."""
    numbers = findings.numbers
    return rules_table(numbers), *network_tables.tables(numbers)


def rules_table(numbers: dict[str, Any]):
    """Return a table with one row for each rule, over all networks."""
    networks, protocol = numbers["networks"], numbers["protocol"]
    columns = (
        "rule",
        "rank",
        "interval of the rank",
        f"loss, times {USUAL}'s",
        "interval",
        "verdict",
        "steps for equal loss",
        "interval of steps",
        "ranks on " + ", ".join(plain(network) for network in networks),
        "best rates",
        "decades of rate within 10 %",
        "diverged",
        "seconds a step",
    )
    timed = numbers["by_rule"][0]["times_seconds"] is not None
    columns = columns if timed else columns[:-1]
    rows = tuple(rule_row(row)[: len(columns)] for row in numbers["by_rule"])
    note = (
        "The loss is the validation loss at the end of the training, as the geometric "
        f"mean over networks, {protocol['searches']} independent searches and "
        f"{len(protocol['seeds'])} seeds. The {100 * protocol['level']:g} % intervals "
        "cover other searches and other seeds on these networks, and are corrected for "
        "the number of rules. Steps for equal loss: the steps that the rule needs, "
        f"divided by those of {USUAL}. Best rates: the lowest and the highest best "
        "rate of a network. Decades: the median over networks of the range of rates "
        "whose loss is within 10 % of the lowest. Diverged: share of the runs of the "
        "first trials."
    )
    # The table has numbers, because the kept reference has them.
    for words in ("at most ", "at least "):
        names = [row["rule"] for row in numbers["by_rule"] if at_most(row) == words]
        if names:
            note += f" The steps of {', '.join(names)} are {words}this number, because "
            note += f"more than half of the runs leave the losses that {USUAL} reaches."
    if timed:
        note += f" Seconds a step: divided by those of {USUAL}, median over networks."
    return research.runs.Table("What to use first on a network", columns, rows, note)


def rule_row(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return the cells of one rule."""
    usual = row["rule"] == USUAL
    span = lambda name: (
        ""
        if row[f"{name}_low"] is None
        else f"[{short(row[f'{name}_low'])}, {short(row[f'{name}_high'])}]"
    )
    rates = [rate for rate in row["rates"] if rate is not None]
    best = f"{short(min(rates))} to {short(max(rates))}" if rates else "none"
    if row["rate_name"] not in (None, "learning_rate"):
        best = f"{row['rate_name']} {best}"
    return (
        row["rule"],
        row["rank"],
        f"[{row['rank_low']}, {row['rank_high']}]",
        row["loss_ratio"],
        "" if usual else span("loss"),
        row["verdict"],
        "not measured" if row["steps"] is None else row["steps"],
        "" if usual else span("steps"),
        ", ".join(str(rank) for rank in row["ranks"]),
        best,
        "none" if row["decades"] is None else row["decades"],
        f"{100 * row['diverged']:.0f} %",
        row["times_seconds"],
    )


def plain(network: str):
    """Return a network's name in as few letters as possible."""
    return network.partition("_")[0]


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the losses beside AdamW's, the losses by network, and the rates."""
    return {
        "ranking": draw_ranking(result.numbers),
        "by_network": draw_by_network(result.numbers),
        "rates": draw_rates(result.numbers),
    }


def rows_panel(numbers: dict[str, Any], height: float):
    """Return a figure whose rows are the rules, the best at the top."""
    names = [row["rule"] for row in numbers["by_rule"]]
    figure, axes = research.figures.new_figure(
        width=WIDTH, height=1.3 + height * len(names)
    )
    panel = axes[0, 0]
    short_lines = [name.replace("schedule_free_", "schedule_free_\n") for name in names]
    panel.set_yticks(range(len(names)), short_lines)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.grid(axis="y", visible=False)
    return figure, panel


def draw_ranking(numbers: dict[str, Any]):
    """Draw each rule's loss relative to AdamW's, over all networks and on each."""
    figure, panel = rows_panel(numbers, 0.3)
    ratios = ratios_of(numbers)
    for place, network in enumerate(numbers["networks"]):
        panel.plot(
            ratios[:, place],
            range(len(ratios)),
            MARKERS[place % len(MARKERS)],
            color=COLOURS[place % len(COLOURS)],
            markersize=4,
            alpha=0.55,
            label=plain(network),
        )
    for place, row in enumerate(numbers["by_rule"]):
        if row["rule"] != USUAL:
            ends = [row["loss_low"], row["loss_high"]]
            panel.plot(ends, [place] * 2, color="#222222", lw=2.5)
        panel.plot(row["loss_ratio"], place, "o", color="#222222", markersize=7)
    panel.axvline(1, color="#8A8F98", lw=1)
    panel.set(xscale="log", xlabel=f"validation loss, divided by that of {USUAL}")
    mark_ratios(panel, ratios)
    ranks = panel.twinx()
    ranks.set_ylim(panel.get_ylim())
    ranks.set_yticks(
        range(len(ratios)),
        [span_of(row["rank_low"], row["rank_high"]) for row in numbers["by_rule"]],
    )
    ranks.tick_params(length=0)
    ranks.set_ylabel(f"{100 * numbers['protocol']['level']:g} % interval of the rank")
    ranks.grid(visible=False)
    figure.legend(loc="outside lower center", ncols=min(5, len(numbers["networks"])))
    words = "; ".join(
        f"{row['rule']} {row['loss_ratio']:.3g}, rank {row['rank']} "
        f"[{row['rank_low']}, {row['rank_high']}]"
        for row in numbers["by_rule"]
    )
    caption = (
        f"Validation loss at the end, divided by that of {USUAL}. Black: over all "
        f"networks, with {100 * numbers['protocol']['level']:g} % intervals over "
        "searches and seeds. Colours: each network. On the right: interval of the "
        f"rank. {words}."
    )
    return research.figures.Picture("Which rule ends lower?", caption, figure)


def span_of(low: int, high: int):
    """Write a range of ranks."""
    return f"{low}" if low == high else f"{low} to {high}"


def ratios_of(numbers: dict[str, Any]):
    """Return the loss relative to AdamW's, of shape (rules, networks)."""
    found = {(one["network"], one["rule"]): one for one in numbers["comparisons"]}
    return np.array(
        [
            [
                found[network, row["rule"]]["loss_ratio"]
                if row["rule"] != USUAL
                else 1.0
                for network in numbers["networks"]
            ]
            for row in numbers["by_rule"]
        ]
    )


def mark_ratios(panel: Any, ratios: np.ndarray):
    """Write few round numbers at the axis of ratios."""
    low, high = panel.get_xlim()
    usual = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 30, 100)
    ticks = [tick for tick in usual if low <= tick <= high]
    ticks = [
        tick for tick in ticks if tick == 1 or len(ticks) < 8 or tick in usual[::2]
    ]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()


def draw_by_network(numbers: dict[str, Any]):
    """Draw the loss of each rule on each network, relative to AdamW's."""
    figure, panel = rows_panel(numbers, 0.3)
    ratios, networks = ratios_of(numbers), numbers["networks"]
    bound = max(0.1, float(np.quantile(np.abs(np.log(ratios)), 0.8)))
    panel.imshow(
        np.log(ratios), cmap="RdBu_r", vmin=-2 * bound, vmax=2 * bound, aspect="auto"
    )
    for (row, column), ratio in np.ndenumerate(ratios):
        dark = abs(np.log(ratio)) > 1.3 * bound
        panel.text(
            column,
            row,
            f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}",
            ha="center",
            va="center",
            color="white" if dark else "#222222",
        )
    panel.set_xticks(range(len(networks)), [plain(network) for network in networks])
    panel.tick_params(
        length=0, top=True, bottom=False, labeltop=True, labelbottom=False
    )
    panel.grid(visible=False)
    best = "; ".join(
        f"{numbers['by_rule'][int(place)]['rule']} {ratios[int(place), column]:.2f} on "
        f"{networks[column]}"
        for column, place in enumerate(np.argmin(ratios, axis=0))
    )
    caption = (
        f"Validation loss at the end, divided by that of {USUAL}, on each network. "
        f"Blue is lower. Lowest: {best}."
    )
    return research.figures.Picture("Does the order hold everywhere?", caption, figure)


def draw_rates(numbers: dict[str, Any]):
    """Draw the best rate of each rule on each network, and the rates near it."""
    figure, panel = rows_panel(numbers, 0.42)
    networks = numbers["networks"]
    cells = {(cell["network"], cell["rule"]): cell for cell in numbers["cells"]}
    step, words = 0.7 / len(networks), []
    for row in range(0, len(numbers["by_rule"]), 2):
        panel.axhspan(row - 0.5, row + 0.5, color="#F4F5F7", zorder=0)
    for row, rule in enumerate(one["rule"] for one in numbers["by_rule"]):
        best = []
        for place, network in enumerate(networks):
            cell = cells[network, rule]
            if cell["robust_low"] is None:
                continue
            height = row + (place - (len(networks) - 1) / 2) * step
            colour = COLOURS[place % len(COLOURS)]
            ends = [cell["robust_low"], cell["robust_high"]]
            panel.plot(ends, [height] * 2, color=colour, lw=2)
            best.append(cell["chosen"][cell["rate_name"]])
            label = plain(network) if row == 0 else f"_{network}"
            panel.plot(best[-1], height, "o", color=colour, markersize=4.5, label=label)
        if best:
            words.append(f"{rule} {short(min(best))} to {short(max(best))}")
    names = numbers["rules"]
    factor = " (prodigy: factor of its estimate)" if "prodigy" in names else ""
    panel.set(xscale="log", xlabel=f"peak learning rate{factor}")
    figure.legend(loc="outside lower center", ncols=min(5, len(networks)))
    caption = (
        "Best peak rate on each network (dot), and the rates whose loss is within 10 "
        f"% of the lowest (line). Best rates: {'; '.join(words)}."
    )
    if "muon" in names:
        caption += " The rate of muon is that of the matrices."
    return research.figures.Picture("Which rate should I try first?", caption, figure)
