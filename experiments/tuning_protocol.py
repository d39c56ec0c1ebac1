"""How often does the usual way of comparing two rules name the wrong winner?

Five rules are trained once with many trials and many seeds on each workload. From these runs thousands of studies are
drawn that might have been made: a dozen trials (the defaults among them), a few seeds to tune on and others to report.
Nine ways read every one of them: the usual ones, each with a fault (one seed; tuned on what is reported; a rule of one's
own tuned and the other not), and ours (disjoint seeds, equal budgets, an interval that includes the choice). The usual
ways average penalised passes, so that runs short of the target have a number too.

    python experiments/tuning_protocol.py            # under three minutes on two cores
    python experiments/tuning_protocol.py --full     # with digits; more trials, seeds and studies

The truth is what all seeds say: the expected running time to the target of the trial that is best over all of them, among
the trials that a study made, or among all that were made once, which says more about the rules. A rule is also compared
with itself under another name, where every winner is wrong: with the same trials on other seeds, and with other trials
too, so that one side may have been luckier in its search.

Expected (`EXPECTED`), as shares of studies: wrong winners of these trials by our way, `ours_wrong`, and by the worst,
`worst_wrong`; winners between a rule and itself by our way with the same trials, `ours_in_null`, and with other trials,
`ours_with_other_trials`; and there by our way with half of the trials redrawn in each resample, `redrawn_with_other_trials`.
"""

import dataclasses
import itertools
import math
import sys

import numpy as np

import research

EXPECTED = {
    "ours_wrong": (0.0, 0.02),
    "worst_wrong": (0.35, 0.55),
    "ours_in_null": (0.02, 0.08),
    "ours_with_other_trials": (0.5, 0.8),
    "redrawn_with_other_trials": (0.0, 0.05),
}
KINDS = {  # What the two sides of a study do not share.
    "rules": {},
    "same trials": {"other_seeds": True},
    "other trials": {"other_seeds": True, "other_trials": True},
}
NULLS = ("same trials", "other trials")
# What a winner is said of: all trials that were made once, or those of the study.
RULES, TRIALS = "of the rules", "of these trials"
PIECE = 100  # Studies between two looks at the clock.
LINES = {  # The ways whose faults are drawn against the true ratio, with their colours.
    "mine tuned, other defaults": "#D55E00",
    "one seed": "#E69F00",
    "tuned on what is reported": "#CC79A7",
    "ours": "#0072B2",
    "ours, trials redrawn": "#56B4E9",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    rule: tuple[str, ...] = (
        "gradient_descent",
        "heavy_ball",
        "nesterov",
        "rmsprop",
        "adam",
    )
    """Names of our rules."""
    workload: tuple[str, ...] = ("breast_cancer", "diabetes_ridge", "quadratic")
    """Named problems on which all of them run."""
    trials: int = 24
    """Trials of each rule that are made once; the first is its defaults."""
    seeds: str = "0..99"
    """Seeds on which all of them run: 0..9, or 1,4,7."""
    passes: int = 30
    """Budget of every training, in passes over the data."""
    batch_size: int = 32
    """Examples in a batch; a problem without data is always taken whole."""
    target: float = 1e-2
    """Share of the initial f - f* to come down to."""
    budget: int = 12
    """Trials of each rule in a study."""
    few: int = 3
    """Trials of the other rule where budgets are unequal, and seeds where there are few."""
    reported_seeds: int = 20
    """Seeds that a study reports."""
    tuning_seeds: int = 10
    """Seeds on which a study chooses, beside those."""
    studies: int = 1000
    """Studies of each kind."""
    resamples: int = 500
    """Bootstrap resamples of an interval."""
    seed: int = 0
    """Of the studies that are drawn."""
    width: int = 8
    """Lanes in a block; the bits of a cell depend on it."""


LARGER = ("breast_cancer", "diabetes_ridge", "quadratic", "digits")
FULL = Config(workload=LARGER, trials=36, seeds="0..149", studies=3000, resamples=1000)


def run(config, on_progress=None, checkpoints=None):
    """Trains, draws studies, and lets every way read them."""
    checkpoints = checkpoints or research.types.nowhere
    contenders = check(config)
    jobs = list(itertools.product(config.workload, contenders))
    pieces = [
        (kind, start) for kind in KINDS for start in range(0, config.studies, PIECE)
    ]
    total, arrays = len(jobs) + len(pieces), {}
    tell = lambda done, message: (
        on_progress(done, total, message) if on_progress else None
    )
    for done, (workload, contender) in enumerate(jobs):
        tell(done, label := f"{contender.name} on {workload}")
        told = lambda progress, done=done, label=label: tell(
            done + progress.share, f"{progress}: {label}"
        )
        arrays |= pool_arrays(config, workload, contender, told, checkpoints)
    pools = read_pools(config, arrays)
    for done, (kind, start) in enumerate(pieces, len(jobs)):
        tell(done, f"studies: {kind}")
        compute = lambda _, kind=kind, start=start: simulate(config, pools, kind, start)
        found = research.runs.remembered(
            checkpoints, f"studies/{kind}/{start}", compute
        ).arrays
        for name, array in found.items():
            arrays[f"{kind}/{name}"] = (
                np.concatenate([arrays[f"{kind}/{name}"], array]) if start else array
            )
    tell(total, "done")
    numbers = summary(config, pools, arrays)
    return research.runs.Result(answer(numbers), tables(numbers), arrays, numbers)


def check(config):
    """The contenders, once the config makes sense."""
    from research.comparison import make_contenders

    seeds, needed = (
        research.runs.parse_seeds(config.seeds),
        2 * (config.reported_seeds + config.tuning_seeds),
    )
    counts = {
        "few": 1,
        "reported_seeds": 2,
        "tuning_seeds": 2,
        "studies": 1,
        "budget": 2,
    }
    for name, least in counts.items():
        if getattr(config, name) < least:
            raise ValueError(
                f"{name} must be at least {least}; got {name}={getattr(config, name)}."
            )
    if len(seeds) < needed:
        raise ValueError(
            f"seeds: two sides of a study need {needed}; got {len(seeds)}, {config.seeds!r}."
        )
    if config.trials < 2 * config.budget - 1:
        least = 2 * config.budget - 1
        raise ValueError(
            f"trials must be at least {least}, for two disjoint searches; got trials={config.trials}."
        )
    if not config.workload or len(config.rule) < 2:
        raise ValueError(
            f"a comparison needs a workload and two rules; got {config.workload} and {config.rule}."
        )
    found = make_contenders(config.rule)
    if empty := [contender.name for contender in found if not contender.space]:
        raise ValueError(f"rule: {empty[0]} has nothing to tune; leave it out.")
    return found


def pool_arrays(config, workload, contender, on_chunk, checkpoints):
    """Every trial of a rule on every seed: its scores and costs, each of shape (trials, seeds)."""
    from research.comparison import (
        decision_procedures,
        make_protocol,
        measure_contender,
    )

    seeds = research.runs.parse_seeds(config.seeds)
    terms = make_protocol(
        budget=config.trials,
        passes=config.passes,
        batch_size=config.batch_size,
        seeds=seeds,
        tuning_seeds=[
            max(seeds) + 1 + more for more in range(3)
        ],  # Every study draws its own; these decide nothing.
        target=config.target,
        width=config.width,
    )
    name = f"{workload}/{contender.name}"

    def compute(parts):
        on = research.workloads.make_workload(workload)
        saved = measure_contender(
            on, contender, terms, timed=False, on_chunk=on_chunk, checkpoints=parts
        )
        pool = decision_procedures.measured_runs(
            saved.arrays, config.target, config.trials
        )
        return research.types.Saved(
            {"scores": pool.scores, "costs": pool.costs}, pool.budget
        )

    saved = research.runs.remembered(checkpoints, name, compute)
    kept = {f"{name}/{key}": array for key, array in saved.arrays.items()}
    return kept | {f"{name}/budget": np.array(saved.values)}


def read_pools(config, arrays):
    """The pools by (workload, rule); there must be something to compare on each workload."""
    from research.comparison import decision_procedures

    pools = {}
    for key in itertools.product(config.workload, config.rule):
        scores, costs, budget = (
            arrays[f"{'/'.join(key)}/{name}"] for name in ("scores", "costs", "budget")
        )
        pools[key] = decision_procedures.MeasuredRuns(scores, costs, float(budget))
    for workload in config.workload:
        if not any(
            np.isfinite(decision_procedures.true_cost(pools[workload, rule]))
            for rule in config.rule
        ):
            raise ValueError(
                f"no rule reaches target={config.target} on {workload} in {config.passes} passes; allow more."
            )
    return pools


def simulate(config, pools, kind, start):
    """A piece of the studies of one kind: who is named by each way, and which was the better rule.

    Arrays: `pair` (studies, 3), indices of workload, mine and other; `named` (studies, ways), 1 for mine, -1 for the other;
    `truth` (studies, 2), log of the other's true cost over mine, of all trials and of those that were drawn.
    """
    from research.comparison import decision_procedures

    ways = decision_procedures.procedures(config.few, max(1, config.budget // 2))
    rules, workloads = range(len(config.rule)), range(len(config.workload))
    sides = (
        itertools.permutations(rules, 2)
        if kind == "rules"
        else ((rule, rule) for rule in rules)
    )
    pairs = [(workload, *both) for both in sides for workload in workloads]
    found = {"pair": [], "named": [], "truth": []}
    for study in range(start, min(start + PIECE, config.studies)):
        workload, *both = pairs[study % len(pairs)]
        pool = tuple(
            pools[config.workload[workload], config.rule[rule]] for rule in both
        )
        random = np.random.default_rng([config.seed, list(KINDS).index(kind), study])
        counts = {
            "trials": config.budget,
            "tuning_seeds": config.tuning_seeds,
            "seeds": config.reported_seeds,
        }
        drawn = decision_procedures.simulate_study(
            pool, random, **counts, **KINDS[kind]
        )
        found["pair"].append((workload, *both))
        found["named"].append(
            [
                decision_procedures.winner(
                    w, *drawn, resamples=config.resamples, seed=study
                )
                for w in ways.values()
            ]
        )
        found["truth"].append(
            [
                log_ratio(pool, chosen)
                for chosen in ((slice(None),) * 2, [d.trials for d in drawn])
            ]
        )
    return research.types.Saved(
        {name: np.array(values) for name, values in found.items()}, None
    )


def log_ratio(pools, trials):
    """log of the other rule's true cost over mine, each with its trials; 0 where neither reaches the target."""
    from research.comparison import decision_procedures

    mine, other = (
        decision_procedures.true_cost(pool, those)
        for pool, those in zip(pools, trials, strict=True)
    )
    return 0.0 if mine == other else float(np.log(other) - np.log(mine))


def summary(config, pools, arrays):
    """Shares of right and wrong winners by way, each (share, low, high), and the true costs."""
    from research.comparison import decision_procedures

    rows = []
    for column, (name, way) in enumerate(
        decision_procedures.procedures(config.few, max(1, config.budget // 2)).items()
    ):
        row: dict = {"way": name} | way._asdict()
        for kind, truth in truths(arrays).items():
            known = (
                truth != 0
            )  # Where neither reaches the target with any of its trials, nobody is right or wrong.
            row[kind] = decision_procedures.tally(
                arrays["rules/named"][known, column], truth[known]
            )
        for kind in NULLS:
            row[kind] = decision_procedures.tally(
                named := arrays[f"{kind}/named"][:, column], 0 * named
            )["wrong"]
        rows.append(row)
    by_name = {row["way"]: row for row in rows}
    return {
        **{
            name: getattr(config, name)
            for name in (
                "studies",
                "budget",
                "trials",
                "reported_seeds",
                "tuning_seeds",
            )
        },
        "ways": rows,
        "counted": {
            kind: int(np.count_nonzero(truth)) for kind, truth in truths(arrays).items()
        },
        "pairs": math.comb(len(config.rule), 2) * len(config.workload),
        "true_costs": {
            w: {r: decision_procedures.true_cost(pools[w, r]) for r in config.rule}
            for w in config.workload
        },
        "ours_wrong": by_name["ours"][TRIALS]["wrong"][0],
        "worst_wrong": max(row[TRIALS]["wrong"][0] for row in rows),
        "ours_in_null": by_name["ours"]["same trials"][0],
        "ours_with_other_trials": by_name["ours"]["other trials"][0],
        "redrawn_with_other_trials": by_name["ours, trials redrawn"]["other trials"][0],
    }


def truths(arrays):
    """1 where mine is truly the better rule and -1 where the other is, by what this is said of."""
    return dict(
        zip((RULES, TRIALS), np.sign(arrays["rules/truth"]).astype(int).T, strict=True)
    )


def percent(seen):
    """A share in words, with its interval."""
    share, low, high = (
        f"{100 * value:.{1 if value < 0.0995 else 0}f}" for value in seen
    )
    return f"{share} % [{low}, {high}]"


def answer(numbers):
    """How often four ways are wrong where rules differ and where they do not, and what ours does not cover."""
    by_name = {row["way"]: row for row in numbers["ways"]}
    *usual, ours, redrawn = (by_name[name] for name in LINES)
    wrong = [percent(row[TRIALS]["wrong"]) for row in (*usual, ours)]
    null, of = (
        ", ".join(percent(row["same trials"]) for row in usual),
        numbers["counted"],
    )
    return (
        f"Leaving the other rule at its defaults names the wrong winner in {wrong[0]} of {of[TRIALS]:,} simulated "
        f"studies, one seed that is tuned on and reported in {wrong[1]}, {numbers['reported_seeds']} such seeds with equal "
        f"budgets and a t-test in {wrong[2]}, and ours in {wrong[3]}. Between a rule and itself on other seeds the first "
        f"three name a winner in {null}, and ours, which promises 5 %, in {percent(ours['same trials'])}. That is said of the "
        f"trials made: {numbers['budget']} may miss what {numbers['trials']} find, so that of the rules ours is wrong in "
        f"{percent(ours[RULES]['wrong'])} of {of[RULES]:,}, and between a rule and itself with other trials it names a winner in "
        f"{percent(ours['other trials'])}. Redrawing half of the trials lowers these to {percent(redrawn[RULES]['wrong'])} "
        f"and {percent(redrawn['other trials'])}, and leaves {percent(redrawn[RULES]['undecided'])} of the studies undecided."
    )


def tables(numbers):
    """Each way with what it names, what it does, and the truth it is held against."""
    shown = [
        (kind, outcome) for kind in (TRIALS, RULES) for outcome in ("right", "wrong")
    ] + [(RULES, "undecided")]
    columns = [
        "way",
        *(f"{outcome} {kind}" for kind, outcome in shown),
        *(f"null: {kind}" for kind in NULLS),
    ]
    rows = tuple(
        (
            row["way"],
            *(percent(row[kind][outcome]) for kind, outcome in shown),
            *(percent(row[null]) for null in NULLS),
        )
        for row in numbers["ways"]
    )
    note = (
        f"Shares with binomial intervals (95 %), given these runs: {numbers['pairs']} pairs of rules in equal parts, each rule "
        f"in turn as mine. A winner is right of these trials, those of the study ({numbers['counted'][TRIALS]:,} studies: those "
        f"without a tie, as where none reaches the target), or of the rules, with all {numbers['trials']} "
        f"({numbers['counted'][RULES]:,}). Null: one is named between a rule and itself ({numbers['studies']:,} of each kind)."
    )
    ways = research.runs.Table("Who is named", tuple(columns), rows, note)
    costs = numbers["true_costs"]
    true = tuple((workload, *found.values()) for workload, found in costs.items())
    columns = ("workload", *next(iter(costs.values())))
    note = "Expected running time in passes of the trial that is best over all seeds; inf where it never got there."
    return (
        ways,
        how(numbers),
        research.runs.Table("The truth of the rules", columns, true, note),
    )


def how(numbers):
    """What each way does."""
    budget, seeds, tuning = (
        numbers[name] for name in ("budget", "reported_seeds", "tuning_seeds")
    )
    rows = []
    for row in numbers["ways"]:
        tuned = f"{tuning} others" if row["held_out"] else "the same"
        decides = row["decide"] + (
            f", {row['redrawn']} trials redrawn" if row["redrawn"] else ""
        )
        rows.append(
            (
                row["way"],
                f"{budget}, {row['others_trials'] or budget}",
                row["seeds"] or seeds,
                tuned,
                decides,
            )
        )
    columns = ("way", "trials of mine, other", "seeds", "tuned on", "winner by")
    return research.runs.Table("The ways", columns, tuple(rows))


def draw(result):
    """Who is named by each way, where rules differ and where they do not; and wrong winners by the true ratio."""
    numbers = result.numbers
    figure, axes = research.figures.new_figure(
        1, 3, width=13, height=4.4, sharey=True, width_ratios=(3, 3, 2.4)
    )
    for axis, kind in zip(axes[0], (TRIALS, RULES), strict=False):
        draw_outcomes(axis, numbers["ways"], kind)
    draw_null(axes[0, 2], numbers["ways"])
    axes[0, 0].invert_yaxis()
    ours, one = (
        next(row for row in numbers["ways"] if row["way"] == name)
        for name in ("ours", "one seed")
    )
    caption = (
        f"Who is named in studies of two rules that differ, held against what all seeds say of these trials "
        f"(left, {numbers['counted'][TRIALS]:,} studies) and of the rules with all {numbers['trials']} (middle, "
        f"{numbers['counted'][RULES]:,}). Right: how often a winner is named between a "
        f"rule and itself, with the same trials on other seeds (filled), and with other trials (open). Wrong of these trials: "
        f"{percent(one[TRIALS]['wrong'])} with one seed, {percent(ours[TRIALS]['wrong'])} with ours; winners where there is "
        f"none: {percent(one['same trials'])} and {percent(ours['same trials'])}, 5 % (dashed) promised. Bars: binomial "
        "intervals."
    )
    second, axes = research.figures.new_figure(1, 2, width=11, height=4.2, sharey=True)
    for axis, kind in zip(axes[0], (TRIALS, RULES), strict=True):
        draw_by_ratio(axis, result, kind)
    axes[0, 0].legend()
    by_ratio = (
        "The share of studies that name the wrong winner against the true ratio of costs, each point a fifth of them. Left, "
        f"of these trials ({numbers['counted'][TRIALS]:,} studies): noise misleads where rules are nearly equal, defaults on "
        f"one side everywhere. Right, of the rules ({numbers['counted'][RULES]:,}): a search that was lucky for one of them "
        "misleads at any ratio."
    )
    return {
        "winners": research.figures.Picture("Who is named the winner", caption, figure),
        "by_ratio": research.figures.Picture(
            "Wrong winners by the true ratio", by_ratio, second
        ),
    }


def draw_outcomes(axes, ways, kind):
    """Stacked shares: right, undecided, wrong."""
    colours = research.figures.COLOURS
    places, left = np.arange(len(ways)), np.zeros(len(ways))
    looks = {
        "right": colours["mini-batch"],
        "undecided": "#D5D8DC",
        "wrong": colours["stochastic"],
    }
    for outcome, colour in looks.items():
        shares = 100 * np.array([row[kind][outcome][0] for row in ways])
        axes.barh(places, shares, left=left, color=colour, label=outcome, height=0.72)
        for place, share, start in zip(places, shares, left, strict=True):
            if share >= 5:
                ink = "black" if outcome == "undecided" else "white"
                axes.text(
                    start + share / 2,
                    place,
                    f"{share:.0f}",
                    ha="center",
                    va="center",
                    color=ink,
                    fontsize=9,
                )
        left += shares
    axes.set_yticks(places, [row["way"] for row in ways])
    axes.set(xlim=(0, 100), xlabel=f"% of studies, said {kind}")
    axes.grid(visible=False)
    axes.legend(
        ncols=3,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        columnspacing=1.2,
        handlelength=1.2,
    )


def draw_null(axes, ways):
    """Shares of winners between a rule and itself, with their intervals."""
    colour = research.figures.COLOURS["stochastic"]
    for kind, face, shift in zip(NULLS, (colour, "white"), (-0.13, 0.13), strict=True):
        shares = 100 * np.array([row[kind] for row in ways])
        spread = np.abs(shares[:, 1:] - shares[:, :1]).T
        look = {
            "color": colour,
            "markerfacecolor": face,
            "label": kind,
            "markersize": 6,
        }
        axes.errorbar(
            shares[:, 0], np.arange(len(ways)) + shift, xerr=spread, fmt="o", **look
        )
    axes.axvline(5, color=research.figures.COLOURS["exact"], lw=1.2, ls=(0, (5, 3)))
    axes.set(xlim=(-4, 104), xlabel="% named between a rule and itself")
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        ncols=2,
        columnspacing=1.2,
        handlelength=1.2,
    )


def draw_by_ratio(axes, result, kind):
    """Wrong winners among fifths of the studies by true ratio."""
    named, truth = (
        result.arrays["rules/named"],
        result.arrays["rules/truth"][:, (RULES, TRIALS).index(kind)],
    )
    order = [study for study in np.argsort(np.abs(truth)) if truth[study] != 0]
    fifths = [fifth for fifth in np.array_split(order, 5) if len(fifth)]
    for way, row in enumerate(result.numbers["ways"]):
        if row["way"] in LINES:
            shares = [
                100 * np.mean(named[fifth, way] * np.sign(truth[fifth]) < 0)
                for fifth in fifths
            ]
            middles = [np.exp(np.median(np.abs(truth[fifth]))) for fifth in fifths]
            axes.plot(
                middles,
                shares,
                "o-",
                label=row["way"],
                color=LINES[row["way"]],
                markersize=5,
            )
    axes.set(
        xscale="log",
        xlabel="true ratio of costs, dearer over cheaper",
        ylabel="% wrong winners",
        title=kind,
    )
    axes.label_outer()
    low, high = axes.get_xlim()
    ticks = [tick for tick in (1, 1.2, 1.5, 2, 3, 5, 10, 20) if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
