# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/descent/blob/main/notebooks/bring_your_own_rule.ipynb)
#
# # Bring your own rule: is it better than Adam?
#
# You have an idea for an update rule. You write it and try it. At the end of the
# training, its loss is a two-hundredth as far from the minimum as Adam's. May you say
# that it is better? Below you write a rule in ten lines, see it win in the usual way,
# and then let `compare` ask again. `compare` tunes both rules by the same number of
# independent searches. Then it measures them on twenty other random seeds, and gives
# the answer with an interval. At the end, put your own rule in the place of this one
# and run the rest.
#
# Each piece of code comes with a question. **Answer it before you run the code**: on
# paper, with a number. The text after the code says what you should have seen.
#
# The lesson takes about a minute on two cores, without an accelerator. In Colab, run
# the next cell once (no restart is needed). If the package is already installed, skip
# the cell.

# %%
# %pip install --quiet git+https://github.com/OWNER/descent

# %% [markdown]
# `configure` comes before the first computation: it turns on float64. In float32,
# rounding at about $10^{-7}$ would hide small differences from the minimum.

# %%
import research

research.backend.configure(x64=True)

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import research.figures.studies
import research.runs.archive
import research.comparison.archive
from research import comparison, figures, statistics, tuning


def by_hand(make, rates, seed=0, epochs=10):
    """f - f* along one training on breast_cancer for each rate: passes (k,), gaps (rates, k)."""
    workload = research.workloads.make_workload("breast_cancer")
    sampler = research.samplers.minibatch(len(workload.train.y), 32)
    program = research.descent.compile_sweep(workload, make, sampler, epochs)
    trained = research.descent.sweep(program, {"seed": [seed] * len(rates), "learning_rate": rates})
    return trained.passes, trained.values - workload.optimum.value


# %% [markdown]
# ## A rule
#
# The idea: Adam divides an average of gradients by their size. Why not take only the
# sign of the average, and let the step shrink with time?
#
# $$m_t = \beta\, m_{t-1} + (1 - \beta)\, g_t \qquad
# \theta_t = \theta_{t-1} - \frac{\eta}{\sqrt t}\, \mathrm{sign}(m_t)$$
#
# Here $g_t$ is the gradient at step $t$, $m_t$ the average, $\theta_t$ the parameters
# and $\eta$ the rate. The closer $\beta$ (in the code `decay`) is to 1, the longer the
# average remembers.
#
# In optax a rule is two functions. `init(params)` returns the first state: what the
# rule remembers from one step to the next. `update(gradients, state)` returns the
# update, which is added to the params, and the next state.
#
# **Predict.** The first gradient is $(1000, -0.001)$, the rate 0.01. What is the first step?


# %%
def mine(learning_rate=0.01, decay=0.9):
    """The sign of an average of gradients, with a step that shrinks as 1 / sqrt(t)."""

    def init(params):
        return jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params)

    def update(gradients, state, params=None):
        t, average = state[0] + 1, state[1]
        average = jax.tree.map(lambda m, g: decay * m + (1 - decay) * g, average, gradients)
        step = jax.tree.map(lambda m: -learning_rate / jnp.sqrt(t) * jnp.sign(m), average)
        return step, (t, average)

    return optax.GradientTransformation(init, update)


rule = mine()
step, state = rule.update(jnp.array([1000.0, -0.001]), rule.init(jnp.zeros(2)))
print("first step:", np.asarray(step))

# %% [markdown]
# **Seen.** `[-0.01  0.01]`: the rate in every entry, however large the gradient.

# %% [markdown]
# ## The usual way
#
# Logistic regression on 398 tumours, batches of 32, one seed, ten epochs. $f$ is the
# objective and $f^*$ its minimum. Your rule is new, so you try some rates. Adam gets
# 0.001, the rate of its paper, and 0.01.
#
# **Predict.** Your rule will win. By which factor is its $f - f^*$ smaller at the end?

# %%
passes, ours = by_hand(mine, [0.01, 0.03, 0.1, 0.3])
_, adams = by_hand(optax.adam, [0.001, 0.01])
best = np.argmin(ours[:, -1])
with figures.style():
    _, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
    for gaps, name in (
        (ours[best], "mine, the best of four rates"),
        (adams[0], "adam, 0.001"),
        (adams[1], "adam, 0.01"),
    ):
        axes.semilogy(passes, gaps, label=name)
        print(f"{name}: f - f* is {gaps[-1]:.4f} after ten epochs")
    axes.set(xlabel="passes over the data", ylabel="f - f*")
    axes.legend()
plt.show()

# %% [markdown]
# **Seen.** Your rule ends at `0.0013`, Adam at `0.2593` and `0.0143`: two hundred times
# as far from the minimum, or eleven times. Pictures like this one are in papers. Three
# things are wrong with it. Your rule had four trials, and Adam had two, which nobody
# chose for this problem. The seed that you tuned on is the seed that you show. And
# there is only one seed.

# %% [markdown]
# ## The same, asked honestly
#
# Each rule is tuned by four independent searches. A *trial* is one choice of the
# hyper-parameters, and the *space* is the ranges that they are chosen from. A search
# starts with 16 trials: the defaults, then 15 random points of the space. It runs its
# better points on more seeds, and tries new points near them. (A seed means the same
# start and the same batches for both rules.) Each search has points and ten seeds of
# its own. The point that it chooses is measured on twenty other seeds. Both rules have
# the same space, that of Adam. What is compared is the *cost*: passes over the data
# until $f - f^*$ has come down to a hundredth of what it was. (Without `terms`,
# `compare` makes six searches, each with 32 trials and thirty tuning seeds, and trains
# for 30 passes. The twenty reported seeds are the same.)
#
# **Predict.** How much of Adam's cost does your rule need: 0.01, 0.1, 0.5, 1?

# %%
terms = {"searches": 4, "budget": 16, "tuning_seeds": 10, "passes": 10}
space = {"learning_rate": tuning.Range(1e-5, 1.0), "decay": tuning.Range(0.0, 0.99, "one_minus")}
study = comparison.compare({"mine": mine, "adam": "adam"}, "breast_cancer", spaces={"mine": space}, **terms)
print(study)

# %% [markdown]
# **Seen.** `not distinguishable`: your rule needs `0.903` of Adam's cost, and the 95 %
# interval, `[0.729, 1.12]`, goes from a quarter less to an eighth more. The factor of
# two hundred came from Adam's bad learning rate. The interval is that of the whole
# procedure: it allows for other seeds, and for other searches, which would have tried
# other points. The next sentence of the answer says how small a difference this study
# detects: a factor of `1.34` with a probability of 0.8, smaller ones less often. And
# the four searches of Adam disagree. They had the same budget, but the point of the
# worst search costs `1.4` times as much as that of the best.

# %% [markdown]
# ## P(beats it)
#
# The table also has the probability that your rule beats Adam, P(beats it). It is
# counted: take a search of yours, one of Adam's and a seed; in which share of all such
# triples does your rule cost less? (A tie counts one half.)
#
# **Predict.** There are four times four pairs of searches. In how many of them is your rule's mean cost the lower one?

# %%
costs = {}
for name in ("mine", "adam"):
    arrays = {kind: study.arrays[f"breast_cancer/{name}/{kind}"] for kind in ("costs", "passes")}
    costs[name] = np.exp(comparison.logs_of(arrays).mean(axis=1))
    print(f"{name}, passes after each search: {costs[name].round(2)}")
ratios = costs["mine"][:, None] / costs["adam"]
found = study.numbers["comparisons"][0]
print(f"mine costs less in {np.sum(ratios < 1)} of 16 pairs of searches, from {ratios.min():.2f} to {ratios.max():.2f}")
print(f"P(mine beats adam) = {found['win']:.2f}, between {found['win_low']:.2f} and {found['win_high']:.2f}")
print(f"share of the variance that comes from the searches: {found['from_searches']:.2f}")
with figures.style():
    _, axes = plt.subplots(figsize=(6, 2.4), layout="constrained")
    for height, name in enumerate(("mine", "adam")):
        axes.plot(costs[name], np.full(4, height), "o", color=figures.COLOURS["data"])
    axes.set(xlabel="passes to the target, one point for each search", ylim=(-0.5, 1.5))
    axes.set_yticks([0, 1], ["mine", "adam"])
plt.show()

# %% [markdown]
# **Seen.** In `12`. Somebody who tunes each rule once sees only one of the 16 pairs. In
# one of them yours needs `0.70` of Adam's cost, in another `1.11`. More seeds help
# little: they only measure the same two points more exactly, and `0.72` of the variance
# comes from the searches. The interval of P contains one half: the rules may be equally
# good.

# %% [markdown]
# ## What tuning costs
#
# Each trial is a training, too. What do you get if you can pay for $k$ trials only?
# Here is the expected cost of the best of $k$ trials, without the refinement of a
# search. The trials are the defaults and $k - 1$ random points of the space. A run that
# misses the target counts as ten full trainings, 100 passes.
#
# **Predict.** The points that the searches chose cost about 1.6 passes. What does the
# best of sixteen trials cost?

# %%
pictures = figures.studies.draw_study(study.numbers, study.arrays)
for k in (1, 2, 4, 8, 16):
    mine_cost, adam_cost = (study.arrays[f"breast_cancer/{name}/best_of"][k - 1] for name in ("mine", "adam"))
    told = [f"{cost:5.2f} [{low:.2f}, {high:.2f}]" for cost, low, high in (mine_cost, adam_cost)]
    print(f"best of {k:2} trials: mine {told[0]} passes, adam {told[1]}")
pictures["trials"].figure

# %% [markdown]
# **Seen.** With one trial, the defaults, hardly any run reaches the target. With
# sixteen the expected cost is `4.27` and `4.63`: nearly three times the cost of a point
# that a search chose. A search continues around its best points. So there are two
# questions. *What do I get for k trials?* The picture answers this one. *Which rule is
# better when it is tuned well?* The study above answers that one. The two answers can
# differ, and a paper should say which question it means.

# %% [markdown]
# ## A comparison whose answer is known
#
# Does `compare` also name a winner where there is none? Let Adam meet itself, under two
# names. Each name has searches of its own: Adam tuned by you, and Adam tuned by me.
# Then something harder: divide the eight searches into two sides of four, in all
# seventy ways, and compare the sides. The right verdict is always *not
# distinguishable*, in the code `undecided`. Every other verdict is false.
#
# The usual way has one search of each rule, and a t-test over the twenty seeds. It
# names a winner if the mean difference is larger than chance alone makes it in 95 % of
# the cases. The eight searches have 28 pairs.
#
# **Predict.** In how many of the 28 does the t-test name a winner, and in how many of
# the seventy does `compare`?

# %%
null = comparison.compare({"one": "adam", "two": "adam"}, "breast_cancer", timed=False, **terms)
print(null.answer)
logs = np.concatenate(
    [
        comparison.logs_of({kind: null.arrays[f"breast_cancer/{name}/{kind}"] for kind in ("costs", "passes")})
        for name in ("one", "two")
    ]
)
verdicts = []
for number in range(256):
    side = number >> np.arange(8) & 1 == 1
    if side.sum() == 4:
        verdicts.append(statistics.searched_difference([(logs[side], logs[~side])]).verdict)
print("four searches a side:", {verdict: verdicts.count(verdict) for verdict in ("better", "undecided", "worse")})
first, second = np.triu_indices(8, 1)
difference = logs[first] - logs[second]
t = np.sqrt(20) * difference.mean(axis=1) / difference.std(axis=1, ddof=1)
print(f"one search a side, t-test: a winner in {np.sum(np.abs(t) > 2.093)} of {len(t)}")

# %% [markdown]
# **Seen.** The first sentences are the answer of `compare` for the two names. The
# t-test names a winner in `16` of `28`, and each time it is wrong, because both sides
# are Adam. One of the two *points* may indeed be better. But the question was about the
# *rule*. Of the seventy ways, `2` say better and `2` say worse: about one in twenty.
# That is what 95 % means: the share of such errors is known in advance. (The
# seventy ways share their eight searches, so this share is rough. The project's tests
# measure it on thousands of simulated studies.)

# %% [markdown]
# ## A second problem
#
# One problem says little about others. Ridge regression on 309 patients is a second
# one, and the answer is now about both: the geometric mean of the two ratios of costs.
#
# **Predict.** Will two problems decide what one did not?

# %%
both = comparison.compare(
    {"mine": mine, "adam": "adam"},
    ["breast_cancer", "diabetes_ridge"],
    spaces={"mine": space},
    timed=False,
    **terms,
)
print(both.answer)
for found in both.numbers["comparisons"]:
    print(f"{found['workload']}: {found['ratio']:.2f}, between {found['low']:.2f} and {found['high']:.2f}")
figures.studies.draw_study(both.numbers, both.arrays)["ratios"].figure

# %% [markdown]
# **Seen.** They do not. On the patients your rule needs `1.18` times Adam's cost, and
# on both problems together `1.03`. Every interval contains 1. But you have asked twice.
# Had the first problem said *better*, you would have stopped there; because it did not,
# you went on. If two rules are equally good, each single answer names a winner in 5 %
# of the cases. This habit names one more often, because it has two chances. Decide on
# the problems before you look. Most of the variance comes from the searches. So more
# searches would decide it, if there is a difference: the interval shrinks about like
# one over the square root of their number.

# %% [markdown]
# ## Keep it
#
# **Predict.** What must be kept of a study, so that somebody else can check each sentence of it?

# %%
folder = study.save()
print(*sorted(path.name for path in folder.glob("[!.]*")))
packed = research.runs.archive.pack(folder, "mine_and_adam.zip")
read = research.comparison.archive.read_study(packed)
print(read.name, read.manifest["status"], f"{read.numbers['overall'][0]['ratio']:.2f}")

# %% [markdown]
# **Seen.** Three plain files hold the study. `manifest.json` has the terms, the
# versions, the machine and the digests of the other files. `result.json` has the
# answer, its tables and the source of your rule. `arrays.npz` has each run's cost. The
# pictures and `report.html` are made from them. Reading a study executes nothing, so
# you can send `mine_and_adam.zip` to somebody. The command *descent reproduce* draws
# the report again. It trains again only if all rules are from this package or optax, or
# if you have the file of the rule: unchanged in the current folder, or named by you.
# *descent leaderboard* makes one page of their studies and yours.

# %% [markdown]
# ## Exercises
#
# Predict first, here too. For a rule in a file of yours, a comparison is one command:
# `descent compare my_rules.py:mine adam --workload breast_cancer diabetes_ridge`.
#
# 1. **A space that knows the answer.** By hand you have seen which rates are good. In
#    `space`, give the rate the range `tuning.Range(0.01, 0.3)` and ask again.
#    (Undecided, with a ratio of 0.87, hardly less than before: a search finds those
#    rates by itself.) Then leave `spaces` out: only the rate of your rule is searched,
#    from 1e-5 to 10. (Worse, 1.8: the decay of 0.9 costs that much.) And with the first
#    space, `budget=4`? (Undecided, between 0.03 and 10: such small searches disagree by
#    a factor of 26 for your rule and of 39 for Adam, and the interval says so.)
# 2. **Rows that nobody has seen.** With `tune_on="validation"` the validation rows
#    choose a trial, and the test rows are reported; `tune_on="test"` is refused. Is the
#    answer the same? (Undecided again, but 1.14, and the interval is far wider, 0.68 to
#    1.91: the searches disagree more about rows that they do not see.)
# 3. **A slip.** Make each of these mistakes in your rule, one at a time. What is the
#    answer? First, forget the minus sign. (The rule is worse by a factor of 57. Each run
#    ends above its start, so it counts as ten full trainings.) Second, begin at
#    $t = 0$. (The answer is the same, because every training diverges.) Third, return
#    `average` alone as the state. (Nothing is trained, because the state changes its
#    structure.)
