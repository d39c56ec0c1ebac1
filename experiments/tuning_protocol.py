"""How often does the usual way of comparing two rules name the wrong winner?

Five rules are trained once with many trials and many seeds on each workload. From these runs thousands of studies are
drawn that might have been made: a dozen trials (the defaults among them), a few seeds to tune on and others to report.
Nine ways read every one of them: the usual ones, each with a fault (one seed; tuned on what is reported; a rule of one's
own tuned and the other not), and ours (disjoint seeds, equal budgets, an interval that includes the choice). The truth is
what all runs together say: the expected running time to the target of the trial that is best over all seeds.

    python experiments/tuning_protocol.py            # under three minutes on two cores
    python experiments/tuning_protocol.py --full     # five workloads, twice the runs, more studies

A rule is also compared with itself under another name, where every winner is wrong: once with the same trials on other
seeds, and once with trials of its own too, so that the one may have been luckier in its search. Expected (`EXPECTED`): the
share of winners named there by our way with the same trials, `ours_in_null`, and with trials of its own,
`ours_with_other_trials`, and by our way with trials redrawn, `redrawn_with_other_trials`; and where rules differ, the
largest share of wrong winners of any way, `worst_wrong`.
"""

import dataclasses
import itertools
import math
import sys

import numpy as np

import research

EXPECTED = {
    "ours_in_null": (0.0, 0.08),
    "ours_with_other_trials": (0.5, 0.8),
    "redrawn_with_other_trials": (0.0, 0.08),
    "worst_wrong": (0.3, 0.5),
}
KINDS = {  # What the two sides of a study do not share.
    "rules": {},
    "same trials": {"other_seeds": True},
    "other trials": {"other_seeds": True, "other_trials": True},
}
PIECE = 100  # Studies between two looks at the clock.
LINES = ("one seed", "tuned on what is reported", "mine tuned, other defaults", "ours", "ours, trials redrawn")


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    rule: tuple[str, ...] = ("gradient_descent", "heavy_ball", "nesterov", "rmsprop", "adam")
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
    tuning_seeds: int = 3
    """Seeds on which a study chooses, beside those."""
    studies: int = 1000
    """Studies of each kind."""
    resamples: int = 500
    """Bootstrap resamples of an interval."""
    seed: int = 0
    """Of the studies that are drawn."""
    width: int = 8
    """Lanes in a block; the bits of a cell depend on it."""


FULL = Config(
    workload=("breast_cancer", "diabetes_ridge", "quadratic", "diabetes", "digits"),
    trials=48,
    seeds="0..199",
    studies=5000,
    resamples=1000,
)


def run(config, on_progress=None, checkpoints=None):
    """Trains, draws studies, and lets every way read them."""
    checkpoints = checkpoints or research.types.nowhere
    contenders = check(config)
    jobs = list(itertools.product(config.workload, contenders))
    pieces = [(kind, start) for kind in KINDS for start in range(0, config.studies, PIECE)]
    total, arrays = len(jobs) + len(pieces), {}
    tell = lambda done, message: on_progress(done, total, message) if on_progress else None
    for done, (workload, contender) in enumerate(jobs):
        tell(done, label := f"{contender.name} on {workload}")
        told = lambda progress, done=done, label=label: tell(done + progress.share, f"{progress}: {label}")
        arrays |= pool_arrays(config, workload, contender, told, checkpoints)
    pools = read_pools(config, arrays)
    for done, (kind, start) in enumerate(pieces, len(jobs)):
        tell(done, f"studies: {kind}")
        compute = lambda _, kind=kind, start=start: simulate(config, pools, kind, start)
        found = research.runs.remembered(checkpoints, f"studies/{kind}/{start}", compute).arrays
        for name, array in found.items():
            arrays[f"{kind}/{name}"] = np.concatenate([arrays[f"{kind}/{name}"], array]) if start else array
    tell(total, "done")
    numbers = summary(config, pools, arrays)
    return research.runs.Result(answer(numbers), tables(numbers), arrays, numbers)


def check(config):
    """The contenders, once the config makes sense."""
    from research.studies.contenders import contenders

    seeds, needed = research.runs.parse_seeds(config.seeds), 2 * (config.reported_seeds + config.tuning_seeds)
    counts = {"few": 1, "reported_seeds": 2, "tuning_seeds": 2, "studies": 1, "budget": 2}
    for name, least in counts.items():
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be at least {least}; got {name}={getattr(config, name)}.")
    if len(seeds) < needed:
        raise ValueError(f"seeds: two sides of a study need {needed}; got {len(seeds)}, {config.seeds!r}.")
    if config.trials < 2 * config.budget - 1:
        raise ValueError(
            f"trials must be at least {2 * config.budget - 1}, for two disjoint searches of budget={config.budget}; got "
            f"trials={config.trials}."
        )
    if not config.workload or len(config.rule) < 2:
        raise ValueError(f"a comparison needs a workload and two rules; got {config.workload} and {config.rule}.")
    found = contenders(config.rule)
    if empty := [contender.name for contender in found if not contender.space]:
        raise ValueError(f"rule: {empty[0]} has nothing to tune; leave it out.")
    return found


def pool_arrays(config, workload, contender, on_chunk, checkpoints):
    """Every trial of a rule on every seed: its scores and costs, each of shape (trials, seeds)."""
    from research.studies import pairs, protocol, readings

    seeds = research.runs.parse_seeds(config.seeds)
    terms = protocol.make_protocol(
        budget=config.trials,
        passes=config.passes,
        batch_size=config.batch_size,
        seeds=seeds,
        tuning_seeds=[max(seeds) + 1, max(seeds) + 2],  # Every study draws its own; these two decide nothing.
        target=config.target,
        width=config.width,
    )
    name = f"{workload}/{contender.name}"

    def compute(parts):
        on = research.workloads.make_workload(workload)
        saved = pairs.measure_pair(on, contender, terms, timed=False, on_chunk=on_chunk, checkpoints=parts)
        pool = readings.pool_of(saved.arrays, config.target, config.trials)
        return research.types.Saved({"scores": pool.scores, "costs": pool.costs}, pool.budget)

    saved = research.runs.remembered(checkpoints, name, compute)
    kept = {f"{name}/{key}": array for key, array in saved.arrays.items()}
    return kept | {f"{name}/budget": np.array(saved.values)}


def read_pools(config, arrays):
    """The pools by (workload, rule)."""
    from research.studies import readings

    pools = {}
    for key in itertools.product(config.workload, config.rule):
        scores, costs, budget = (arrays[f"{'/'.join(key)}/{name}"] for name in ("scores", "costs", "budget"))
        pools[key] = readings.Pool(scores, costs, float(budget))
    return pools


def simulate(config, pools, kind, start):
    """A piece of the studies of one kind: who is named by each way, and which was the better rule.

    Arrays: `pair` (studies, 3), indices of workload, mine and other; `named` (studies, ways), 1 for mine, -1 for the other;
    `truth` (studies, 2), log of the other's true cost over mine, of all trials and of those that were drawn.
    """
    from research.studies import readings

    ways = readings.readings(config.few, max(1, config.budget // 2))
    rules, workloads = range(len(config.rule)), range(len(config.workload))
    sides = itertools.permutations(rules, 2) if kind == "rules" else ((rule, rule) for rule in rules)
    pairs = [(workload, *both) for both in sides for workload in workloads]
    found = {"pair": [], "named": [], "truth": []}
    for study in range(start, min(start + PIECE, config.studies)):
        workload, *both = pairs[study % len(pairs)]
        pool = tuple(pools[config.workload[workload], config.rule[rule]] for rule in both)
        random = np.random.default_rng([config.seed, list(KINDS).index(kind), study])
        counts = {"trials": config.budget, "tuning_seeds": config.tuning_seeds, "seeds": config.reported_seeds}
        drawn = readings.draw_study(pool, random, **counts, **KINDS[kind])
        found["pair"].append((workload, *both))
        found["named"].append([readings.read(w, *drawn, resamples=config.resamples, seed=study) for w in ways.values()])
        found["truth"].append([log_ratio(pool, chosen) for chosen in ((slice(None),) * 2, [d.trials for d in drawn])])
    return research.types.Saved({name: np.array(values) for name, values in found.items()}, None)


def log_ratio(pools, trials):
    """log of the other rule's true cost over mine, each with its trials; 0 where neither reaches the target."""
    from research.studies import readings

    mine, other = (readings.true_cost(pool, those) for pool, those in zip(pools, trials, strict=True))
    return 0.0 if mine == other else float(np.log(other) - np.log(mine))


def summary(config, pools, arrays):
    """Shares of right and wrong winners by way, each (share, low, high), and the true costs."""
    from research.studies import readings

    ways = readings.readings(config.few, max(1, config.budget // 2))
    named, (truth, of_these) = arrays["rules/named"], np.sign(arrays["rules/truth"]).T
    rows = []
    for column, (name, way) in enumerate(ways.items()):
        winner = named[:, column]
        outcomes = {
            "right": (winner == truth) & (winner != 0),
            "wrong": (winner == -truth) & (winner != 0),
            "undecided": winner == 0,
            "wrong_of_these_trials": (winner == -of_these) & (winner != 0),
            "same trials": arrays["same trials/named"][:, column] != 0,
            "other trials": arrays["other trials/named"][:, column] != 0,
        }
        shares = {key: readings.share(seen.sum(), len(seen)) for key, seen in outcomes.items()}
        rows.append({"way": name} | way._asdict() | shares)
    by_name = {row["way"]: row for row in rows}
    return {
        "ways": rows,
        "studies": config.studies,
        "budget": config.budget,
        "reported_seeds": config.reported_seeds,
        "tuning_seeds": config.tuning_seeds,
        "pairs": math.comb(len(config.rule), 2) * len(config.workload),
        "true_costs": {
            w: {r: as_number(readings.true_cost(pools[w, r])) for r in config.rule} for w in config.workload
        },
        "ours_in_null": by_name["ours"]["same trials"][0],
        "ours_with_other_trials": by_name["ours"]["other trials"][0],
        "redrawn_with_other_trials": by_name["ours, trials redrawn"]["other trials"][0],
        "worst_wrong": max(row["wrong"][0] for row in rows),
    }


def as_number(cost):
    """A cost as JSON has it: None where it is infinite."""
    return cost if math.isfinite(cost) else None


def percent(seen, interval=True):
    """A share in words, with its interval."""
    share, low, high = (f"{100 * value:.{1 if value < 0.0995 else 0}f}" for value in seen)
    return f"{share} % [{low}, {high}]" if interval else f"{share} %"


def answer(numbers):
    """How often each way is wrong where rules differ, and where there is no difference."""
    by_name = {row["way"]: row for row in numbers["ways"]}
    worst = max(numbers["ways"], key=lambda row: row["wrong"][0])
    one, ours, redrawn = (by_name[name] for name in ("one seed", "ours", "ours, trials redrawn"))
    return (
        f"Of {numbers['studies']:,} simulated studies of two rules that differ, '{worst['way']}' names the wrong winner in "
        f"{percent(worst['wrong'])}, 'one seed' in {percent(one['wrong'])}, and ours in {percent(ours['wrong'])}: nearly all "
        f"because a dozen trials may miss what two dozen find, for of the trials that were made ours is wrong in "
        f"{percent(ours['wrong_of_these_trials'])}. Between a rule and itself on other seeds, 'one seed' always names a "
        f"winner ({percent(one['same trials'], False)}), '{worst['way']}' in {percent(worst['same trials'])}, and ours in "
        f"{percent(ours['same trials'])}. Ours too takes the luckier search for the better rule, in "
        f"{percent(ours['other trials'])}, where the two try different points; redrawing the trials lowers that to "
        f"{percent(redrawn['other trials'])}, and then leaves {percent(redrawn['undecided'])} of the studies undecided."
    )


def tables(numbers):
    """Each way with what it names, and the truth it is held against."""
    rows = tuple(
        (
            row["way"],
            described(row, numbers),
            *(percent(row[key]) for key in ("right", "wrong", "undecided", "wrong_of_these_trials", *list(KINDS)[1:])),
        )
        for row in numbers["ways"]
    )
    columns = ("way", "how", "right", "wrong", "undecided", "wrong of these trials")
    note = (
        f"Shares of {numbers['studies']:,} studies of each kind, {numbers['pairs']} pairs of rules in equal parts, each rule in "
        "turn as mine; binomial intervals (95 %), given these runs. Right and wrong are about the rules at all trials that "
        "were made once; of these trials: at those of the study. Last columns: named winners where both rules are the same, "
        "with the same trials on other seeds, and with other trials too; every one of them is wrong."
    )
    ways = research.runs.Table("Who is named", (*columns, "null: same trials", "null: other trials"), rows, note)
    costs = numbers["true_costs"]
    names = list(next(iter(costs.values())))
    true = tuple((workload, *(found[name] for name in names)) for workload, found in costs.items())
    note = "Expected running time in passes, of the trial that is best over all seeds; - where it never reached the target."
    return ways, research.runs.Table("The truth", ("workload", *names), true, note)


def described(row, numbers):
    """A way in words: trials of mine and of the other rule, seeds, what names the winner."""
    seeds = row["seeds"] or numbers["reported_seeds"]
    tuned = f"{numbers['tuning_seeds']} others" if row["held_out"] else "them"
    redrawn = f", {row['redrawn']} of the trials redrawn" if row["redrawn"] else ""
    trials = f"{numbers['budget']} and {row['others_trials'] or numbers['budget']} trials"
    return f"{trials}, {seeds} seed{'s' * (seeds > 1)}, tuned on {tuned}; {row['decide']}{redrawn}"


def draw(result):
    """Who is named by each way, where rules differ and where they do not; and wrong winners by the true ratio."""
    numbers, colours = result.numbers, research.figures.COLOURS
    figure, axes = research.figures.new_figure(1, 2, width=11, height=4.4, sharey=True, width_ratios=(3, 2))
    draw_outcomes(axes[0, 0], numbers["ways"], colours)
    draw_null(axes[0, 1], numbers["ways"], colours)
    axes[0, 0].invert_yaxis()
    by_name = {row["way"]: row for row in numbers["ways"]}
    ours, one = by_name["ours"], by_name["one seed"]
    caption = (
        f"Left: who is named in {numbers['studies']:,} studies of two rules that differ. Right: how often a winner is named "
        f"between a rule and itself, where each is wrong: with the same trials on other seeds (filled), and with trials of "
        f"its own (open). Wrong winners: {percent(one['wrong'])} with one seed, {percent(ours['wrong'])} with ours; winners "
        f"where there is none, with the same trials: {percent(one['same trials'])} and {percent(ours['same trials'])}, of "
        "which 5 % (dashed) are promised. Bars are binomial intervals."
    )
    second, axes = research.figures.new_figure(1, 1, width=7.5, height=4.2)
    edges = draw_by_ratio(axes[0, 0], result)
    by_ratio = (
        f"The share of studies that name the wrong winner, against the true ratio of costs: fifths of the studies, at "
        f"ratios from {edges[0]:.2f} to {edges[-1]:.3g}. Nearly equal rules are mistaken for each other at little cost; with "
        "defaults on one side even large differences are."
    )
    return {
        "winners": research.figures.Picture("Who is named the winner", caption, figure),
        "by_ratio": research.figures.Picture("Wrong winners by the true ratio", by_ratio, second),
    }


def draw_outcomes(axes, ways, colours):
    """Stacked shares: right, undecided, wrong."""
    places, left = np.arange(len(ways)), np.zeros(len(ways))
    looks = {"right": colours["mini-batch"], "undecided": "#D5D8DC", "wrong": colours["stochastic"]}
    for outcome, colour in looks.items():
        shares = 100 * np.array([row[outcome][0] for row in ways])
        axes.barh(places, shares, left=left, color=colour, label=outcome, height=0.72)
        for place, share, start in zip(places, shares, left, strict=True):
            if share > 4:
                ink = "black" if outcome == "undecided" else "white"
                axes.text(start + share / 2, place, f"{share:.0f}", ha="center", va="center", color=ink, fontsize=9)
        left += shares
    axes.set_yticks(places, [row["way"] for row in ways])
    axes.set(xlim=(0, 100), xlabel="% of studies of two rules that differ")
    axes.grid(visible=False)
    axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


def draw_null(axes, ways, colours):
    """Shares of winners between a rule and itself, with their intervals."""
    for kind, face, shift in (("same trials", colours["stochastic"], -0.13), ("other trials", "white", 0.13)):
        shares = 100 * np.array([row[kind] for row in ways])
        spread = np.abs(shares[:, 1:] - shares[:, :1]).T
        places = np.arange(len(ways)) + shift
        look = {
            "color": colours["stochastic"],
            "markerfacecolor": face,
            "label": kind.replace("trials", "trials, other seeds"),
        }
        axes.errorbar(shares[:, 0], places, xerr=spread, fmt="o", markersize=6, **look)
    axes.axvline(5, color=colours["exact"], lw=1.2, ls=(0, (5, 3)))
    axes.set(xlim=(-3, 103), xlabel="% that name a winner between a rule and itself")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=2)


def draw_by_ratio(axes, result):
    """Wrong winners among fifths of the studies by true ratio; returns the edges of the fifths."""
    truth, named = result.arrays["rules/truth"][:, 0], result.arrays["rules/named"]
    known = np.isfinite(truth) & (truth != 0)
    ratios = np.exp(np.abs(truth[known]))
    edges = np.quantile(ratios, np.linspace(0, 1, 6))
    place = np.clip(np.searchsorted(edges, ratios, side="right") - 1, 0, 4)
    there = [fifth for fifth in range(5) if (place == fifth).any()]
    middles = [np.median(ratios[place == fifth]) for fifth in there]
    for column, row in enumerate(result.numbers["ways"]):
        if row["way"] in LINES:
            wrong = named[known, column] == -np.sign(truth[known])
            shares = [100 * wrong[place == fifth].mean() for fifth in there]
            axes.plot(middles, shares, "o-", label=row["way"], markersize=5)
    axes.set(xscale="log", xlabel="true ratio of costs, dearer over cheaper", ylabel="% wrong winners")
    ticks = [tick for tick in (1.02, 1.05, 1.1, 1.2, 1.5, 2, 3, 5, 10) if edges[0] <= tick <= edges[-1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.legend()
    return edges


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
