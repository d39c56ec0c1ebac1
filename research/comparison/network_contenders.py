"""Contenders on networks: rules whose learning rate follows a schedule."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.typing import ArrayLike

from research import update_rules
from research.checks import (
    check_count,
    check_flag,
    check_instance,
    check_mapping,
    check_real,
)
from research.comparison.contenders import Contender, make_contenders
from research.schedules import Schedule
from research.tuning.spaces import Range, Space, check_space
from research.types import Array, Params, Scalar

# Kinds of decay by their number. "late linear" is also known as warmup-stable-decay.
DECAYS = ("linear", "cosine", "late linear")
LATE = 0.2  # Share of the training in which the late linear decay falls.
SCHEDULE_SPACE: dict[str, Range] = {
    "warmup": Range(0.0, 0.3, "linear", 0.1),
    "decay": Range(0.0, float(len(DECAYS)), "linear", 1.5),
}
# The schedule of a study that searches only the rates.
WARMUP, DECAY = 0.1, float(DECAYS.index("linear"))
# These rules average their iterates instead of decaying the rate.
UNDECAYED = (update_rules.schedule_free_sgd, update_rules.schedule_free_adamw)
RATE = "learning_rate"  # How the names of rates end.
RATE_SPACES: dict[str, Space] = {
    "muon": {
        "learning_rate": Range(1e-3, 1.0),
        "adam_learning_rate": Range(1e-4, 1e-1),
    },
    "shampoo": {"learning_rate": Range(1e-5, 1.0, default=1e-3)},
}


def training_schedule(
    peak: ArrayLike, warmup: ArrayLike, decay: ArrayLike | None, num_steps: int
) -> Schedule:
    """Return a learning-rate schedule with a linear warm-up and a decay to zero.

    The learning rate of step t is

    η_t = peak min(1, (t + 1) / max(1, w)) d((t - w) / (T - w)),

    where t = 0, ..., T - 1, T is the number of steps, and w = warmup · T is the number
    of steps in which the rate rises. During the rise, s = (t - w) / (T - w) is at most
    0, and d(s) is 1. After the rise, d(s) is the function in the table. It would be 0
    at s = 1, one step after the last step T - 1. For the decay "late linear", d(s) is 1
    until s = 0.8.

    | decay | name | d(s) for 0 <= s <= 1 |
    |---|---|---|
    | 0 | linear | 1 - s |
    | 1 | cosine | (1 + cos π s) / 2 |
    | 2 | late linear (warmup-stable-decay) | min(1, (1 - s) / 0.2) |

    Args:
      peak: Largest learning rate; may be a JAX tracer.
      warmup: Share of the training in which the rate rises, in [0, 1); may be a tracer.
      decay: Number of the decay in the table; may be a tracer. The number is rounded
        down to 0, 1 or 2, so that a search may draw it from [0, 3]. (3 counts as 2.)
        None means no decay, d = 1. Use None for schedule-free rules, which average the
        params instead.
      num_steps: Number T of steps.
    Returns:
      The schedule, t -> learning rate.
    Raises:
      ValueError: The warm-up is not shorter than the training.
    References:
      Loshchilov & Hutter, SGDR, ICLR 2017 (cosine). Hu et al., MiniCPM,
      arXiv:2404.06395 (warmup-stable-decay).
    Example:
      >>> rate = training_schedule(1.0, 0.2, 0.0, 10)
      >>> print([round(float(rate(t)), 3) for t in (0, 1, 2, 6, 9)])
      [0.5, 1.0, 1.0, 0.5, 0.125]
    """
    check_count("num_steps", num_steps)
    check_warmup("warmup", warmup)

    def schedule(t: ArrayLike) -> Array:
        step = jnp.asarray(t, jnp.result_type(float))
        rising = jnp.asarray(warmup) * num_steps
        rise = jnp.minimum(1.0, (step + 1) / jnp.maximum(1.0, rising))
        if decay is None:
            return jnp.asarray(peak) * rise
        share = jnp.clip((step - rising) / (num_steps - rising), 0.0, 1.0)
        kinds = [1 - share, (1 + jnp.cos(jnp.pi * share)) / 2]
        kinds += [jnp.minimum(1.0, (1 - share) / LATE)]
        kind = jnp.clip(jnp.floor(decay), 0, len(DECAYS) - 1)
        fall = jnp.select([kind == number for number in range(len(DECAYS))], kinds)
        return jnp.asarray(peak) * rise * fall

    return schedule


def muon_with_adam(
    learning_rate: Scalar | Schedule,
    adam_learning_rate: Scalar | Schedule = 1e-2,
) -> optax.GradientTransformation:
    """Return Muon for leaves with two axes and Adam for the other leaves.

    Muon's update of a matrix has a root mean square of about 0.2 times the learning
    rate (the argument `consistent_rms` of `update_rules.muon`), as in Moonlight (Liu et
    al., arXiv:2502.16982).

    Args:
      learning_rate: Learning rate or schedule of Muon.
      adam_learning_rate: Learning rate or schedule of Adam.
    Example:
      >>> rule = muon_with_adam(0.1, 0.01)
      >>> params = {"weights": jnp.ones((2, 2)), "bias": jnp.zeros(2)}
      >>> updates, _ = rule.update(params, rule.init(params), params)
      >>> sorted(updates)
      ['bias', 'weights']
    """
    return update_rules.by_group(
        {
            "matrix": update_rules.muon(learning_rate, consistent_rms=0.2),
            "other": update_rules.adam(adam_learning_rate),
        },
        _labels,
    )


def grafted_shampoo(
    learning_rate: Scalar | Schedule,
) -> optax.GradientTransformation:
    """Return Shampoo as it is used on networks: with the step lengths of Adam.

    Shampoo multiplies a gradient by inverse roots of matrices. These matrices are
    called factors. A factor is an average of products of gradients. Here the factors
    are moving averages with the decay rate 0.999. ε I is added to each factor, with ε =
    1e-12, before its root is taken. The roots are computed again every ten steps. Shi
    et al. (arXiv:2309.06497) advise this decay rate, this ε, and Adam's step lengths
    (grafting).

    Args:
      learning_rate: Learning rate or schedule. The step has the length of Adam's step
        with this rate.
    Example:
      >>> rule, params = grafted_shampoo(0.1), jnp.ones((2, 2))
      >>> updates, _ = rule.update(params, rule.init(params), params)
      >>> print(updates.round(3))
      [[-0.1 -0.1]
       [-0.1 -0.1]]
    """
    return update_rules.shampoo(
        learning_rate, b2=0.999, eps=1e-12, refresh_every=10, graft=update_rules.adam
    )


def _labels(params: Params) -> Any:
    return jax.tree.map(lambda leaf: "matrix" if leaf.ndim == 2 else "other", params)


# Rules that have another form on networks.
ON_NETWORKS = {
    "muon": (update_rules.muon, muon_with_adam),
    "shampoo": (update_rules.shampoo, grafted_shampoo),
}


def check_warmup(name: str, warmup: Any) -> None:
    """Raise an error if the warm-up is not shorter than the training.

    `warmup` is the share of the training in which the learning rate rises. `name` is
    the name of this argument in the message. A JAX tracer is accepted.

    Raises:
      ValueError: `warmup` is not in [0, 1).
    Example:
      >>> check_warmup("warmup", 1.5)
      Traceback (most recent call last):
      ValueError: warmup must be a share of the training, at least 0 and less than 1...
    """
    check_real(name, warmup)
    if not isinstance(warmup, Tracer) and not 0 <= warmup < 1:
        raise ValueError(
            f"{name} must be a share of the training, at least 0 and less than 1, "
            f"because a schedule cannot be longer than the training; got {warmup!r}."
        )


def network_contenders(
    rules: Mapping[str, Any] | Sequence[str],
    *,
    spaces: Mapping[str, Space] | None = None,
    evaluations: Mapping[str, float] | None = None,
    search_schedule: bool = True,
) -> tuple[Contender, ...]:
    """Make contenders for networks: rules whose rate and schedule are searched.

    A contender is a rule with its search space. By default the space has the rate, with
    the range that `make_contenders` gives it, and the two hyper-parameters of the
    schedule, `warmup` and `decay`. "muon" is `muon_with_adam`, whose two rates have
    ranges of their own and follow the same schedule. "shampoo" is `grafted_shampoo`,
    whose rate has a range of its own. For some rules that estimate their own learning
    rate, such as "prodigy", another hyper-parameter is searched instead of the rate.
    For these rules, the peak of the schedule is the default of the argument
    `learning_rate`, which is 1. The learning rate of a schedule-free rule does not
    decay, so its space has no `decay`.

    Args:
      rules: Mapping from a name to a rule, or a sequence of names of rules of this
        package, as for `make_contenders`. If a rule is given as a Contender, its
        constructor and all ranges in its search space are kept. If search_schedule is
        True, the default ranges of `warmup` and `decay` are added where the space has
        no range of this name.
      spaces: {rule: {hyper-parameter: Range}}. A range replaces the default range of
        the hyper-parameter. If there is no default range, the hyper-parameter is added
        to the space. The hyper-parameters whose names end in "learning_rate" follow the
        schedule. (`scheduled` says what follows the schedule if there is no such name.)
        `warmup` and `decay` are arguments of `training_schedule`. All other
        hyper-parameters are constant.
      evaluations: {rule: cost of one step}, for rules whose cost is not 1, as for
        `make_contenders`.
      search_schedule: Whether `warmup` and `decay` are searched. If False, the warm-up
        is 10 % of the training and the decay is linear (none for a schedule-free rule).
    Returns:
      The contenders, in the order of `rules`. Their rates do not yet follow a schedule:
      `scheduled` adds the schedule.
    Raises:
      ValueError, TypeError: As for `make_contenders`, or the range of a warm-up is not
        inside [0, 1), or the range of a decay is not inside [0, 3].
    Example:
      >>> muon, adam = network_contenders(["muon", "adam"])
      >>> list(muon.space)
      ['learning_rate', 'adam_learning_rate', 'warmup', 'decay']
      >>> list(adam.space)
      ['learning_rate', 'warmup', 'decay']
      >>> (adam,) = network_contenders(["adam"], search_schedule=False)
      >>> list(adam.space)
      ['learning_rate']
    """
    check_flag("search_schedule", search_schedule)
    if spaces is not None:
        check_mapping("spaces", spaces, "names of rules to spaces")
    for name, space in (spaces or {}).items():
        check_space(space, name)
    made = make_contenders(
        rules, spaces=_own_ranges(rules, spaces or {}), evaluations=evaluations
    )
    shape = SCHEDULE_SPACE if search_schedule else {}
    # A rule that is given as a Contender has a search space of its own.
    given = rules.values() if isinstance(rules, Mapping) else rules
    chosen = [isinstance(rule, Contender) for rule in given]
    return tuple(
        _on_networks(one, (spaces or {}).get(one.name, {}), shape, keep=keep)
        for one, keep in zip(made, chosen, strict=True)
    )


def _on_networks(
    contender: Contender, given: Space, shape: Space, *, keep: bool
) -> Contender:
    """Return a contender whose space has ranges for its rates and for its schedule.

    `given` has the ranges from the user, and `shape` the default ranges of the
    schedule. If `keep` is True, the contender keeps its constructor and all ranges.
    """
    if not contender.space:
        if given:
            raise ValueError(
                f"{contender.name} has no hyper-parameter to search, so it has no "
                f"schedule; got ranges for {', '.join(given)}. Pass the constructor of "
                "the rule, or remove these ranges."
            )
        return contender
    make_rule, own = contender.make_rule, {}
    form = None if keep else _form(make_rule)
    if form is not None:
        make_rule, own = ON_NETWORKS[form][1], RATE_SPACES[form]
        ranges = {contender.name: _without_schedule(given)}
        make_contenders({contender.name: make_rule}, spaces=ranges)  # Checks them.
    if _is_undecayed(make_rule):
        shape = {n: range_ for n, range_ in shape.items() if n != "decay"}
    of_rates = _without_schedule(given)
    of_schedule = {n: range_ for n, range_ in given.items() if n in SCHEDULE_SPACE}
    first = next(iter(contender.space))
    rates = own or {first: contender.space[first]}
    if keep:
        rates = contender.space
    shape = {n: range_ for n, range_ in shape.items() if n not in rates}
    space = {**rates, **of_rates, **shape, **of_schedule}
    for end in ("low", "high"):
        if "warmup" in space:
            check_warmup(f"warmup of {contender.name}", getattr(space["warmup"], end))
        if "decay" in space and not 0 <= getattr(space["decay"], end) <= len(DECAYS):
            raise ValueError(
                f"decay of {contender.name} must lie in 0..{len(DECAYS)}; its integer "
                f"part selects one of {', '.join(DECAYS)}. Got {space['decay']}."
            )
    return contender._replace(make_rule=make_rule, space=space)


def _own_ranges(
    rules: Mapping[str, Any] | Sequence[Any], spaces: Mapping[str, Space]
) -> dict[str, dict[str, Range]]:
    """Return the ranges that belong to the constructors of rules, not to schedules.

    A rule that has another form on networks has other arguments there, so its ranges
    are left out.
    """
    given = rules if isinstance(rules, Mapping) else {}
    return {
        name: {} if _form(given.get(name, name)) else _without_schedule(space)
        for name, space in spaces.items()
    }


def _without_schedule(space: Space) -> dict[str, Range]:
    return {n: range_ for n, range_ in space.items() if n not in SCHEDULE_SPACE}


def _form(rule: Any) -> str | None:
    """Return the key in `ON_NETWORKS` of a rule, given as its name or constructor."""
    for name, (plain, _) in ON_NETWORKS.items():
        if rule == name or inspect.unwrap(rule) is inspect.unwrap(plain):
            return name
    return None


def _is_undecayed(make_rule: Any) -> bool:
    plain = inspect.unwrap(make_rule)
    while isinstance(plain, functools.partial):
        plain = inspect.unwrap(plain.func)
    return any(plain is inspect.unwrap(rule) for rule in UNDECAYED)


def schedule_of(contender: Contender, values: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the warm-up and the decay of a rule with the given hyper-parameters.

    The results are the arguments `warmup` and `decay` of `training_schedule`. `values`
    contains the hyper-parameters by name. If `values` has no key "warmup", the warm-up
    is 0.1, which means 10 % of the training. If `values` has no key "decay", a default
    is returned: None for a schedule-free rule (the rate is constant after the warm-up),
    and 0.0 for any other rule (the rate falls linearly to 0).

    Example:
      >>> (adam,) = network_contenders(["adam"], search_schedule=False)
      >>> schedule_of(adam, {"learning_rate": 0.1})
      (0.1, 0.0)
    """
    decay = None if _is_undecayed(contender.make_rule) else DECAY
    return values.get("warmup", WARMUP), values.get("decay", decay)


def scheduled(contender: Contender, num_steps: int) -> Contender:
    """Return a contender whose rates follow the schedule of a training.

    A contender is a rule with its search space. The rates of a contender are the
    hyper-parameters whose names end in "learning_rate". The value of such a
    hyper-parameter is the largest rate of the schedule. If there is no such name, the
    rate is the argument `learning_rate` of the constructor, and the default of this
    argument is the largest rate. If there is no such argument either, or if its default
    is not a number, the rate is the first hyper-parameter.

    The rules of this package and of optax receive the schedule as their learning rate.
    Any other constructor is called in each step with the rate of this step, a JAX
    tracer. A contender without hyper-parameters is returned unchanged.

    The hyper-parameters `warmup` and `decay` are those of `training_schedule`. In the
    example, there is no warm-up, and the decay is linear: the rate is 0.5, then 0.25.

    Args:
      contender: Result of `network_contenders`.
      num_steps: Number of steps of the training. The rates begin to fall after the
        warm-up, at once or later, and would reach zero at step `num_steps`. The rates
        of schedule-free rules do not fall.
    Returns:
      The contender; its constructor takes the same hyper-parameters.
    Example:
      >>> (plain,) = network_contenders(["gradient_descent"])
      >>> values = {"learning_rate": 0.5, "warmup": 0.0, "decay": 0.0}
      >>> rule = scheduled(plain, 2).make_rule(**values)
      >>> state, gradient, params = rule.init(jnp.ones(())), jnp.ones(()), jnp.ones(())
      >>> first, state = rule.update(gradient, state, params)
      >>> print(first, rule.update(gradient, state, params)[0])
      -0.5 -0.25
    """
    check_instance(
        "contender", contender, Contender, "Take it from network_contenders."
    )
    if not contender.space:
        return contender
    own, peaks = _rates(contender)

    def make_rule(**values: Any) -> optax.GradientTransformation:
        shape = schedule_of(contender, values)
        constant = {n: v for n, v in values.items() if n not in SCHEDULE_SPACE}
        rates = peaks | {name: constant.pop(name) for name in own}
        follow = {n: training_schedule(v, *shape, num_steps) for n, v in rates.items()}
        if _takes_schedules(contender.make_rule):
            return contender.make_rule(**constant, **follow)
        return _made_at_each_step(
            functools.partial(contender.make_rule, **constant), follow
        )

    return contender._replace(make_rule=make_rule)


def _takes_schedules(make_rule: Any) -> bool:
    module = str(getattr(inspect.unwrap(make_rule), "__module__", ""))
    return module.partition(".")[0] in ("research", "optax")


class RatesState(NamedTuple):
    """State of a rule whose constructor is called again in each step.

    In each step, the constructor gets the learning rates of that step. `scheduled` uses
    this state for rules that are neither from this package nor from optax, because
    their constructors need not accept a schedule.

    Attributes:
      count: Number of finished steps, int32, shape ().
      inner: State of the rule that the constructor returns.
    """

    count: Array
    inner: optax.OptState


def _made_at_each_step(
    make_rule: Callable[..., optax.GradientTransformation],
    schedules: Mapping[str, Schedule],
) -> optax.GradientTransformationExtraArgs:
    """Return a rule that is made in each step, with the rates of this step.

    The rates have the dtype of the params or updates, so that a step keeps this dtype.
    """

    def at(count: Array, params: Params) -> optax.GradientTransformationExtraArgs:
        dtype = jnp.result_type(*jax.tree.leaves(params))
        rates = {n: jnp.asarray(rate(count), dtype) for n, rate in schedules.items()}
        return optax.with_extra_args_support(make_rule(**rates))

    def init(params: Params) -> RatesState:
        count = jnp.zeros((), jnp.int32)
        return RatesState(count, at(count, params).init(params))

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        rule = at(state.count, updates)
        updates, inner = rule.update(updates, state.inner, params, **extra)
        return updates, RatesState(state.count + 1, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def _rates(contender: Contender) -> tuple[list[str], dict[str, float]]:
    """Return the names of the searched rates, and the peak of a rate not searched.

    A hyper-parameter is a rate if its name ends in "learning_rate". If there is no such
    name, the rate is the constructor's argument `learning_rate`, whose default is the
    peak. If there is no such argument, or if its default is not a number, the rate is
    the first hyper-parameter.
    """
    names = [name for name in contender.space if name not in SCHEDULE_SPACE]
    if rates := [name for name in names if name.endswith(RATE)]:
        return rates, {}
    try:
        argument = inspect.signature(contender.make_rule).parameters.get(RATE)
    except (TypeError, ValueError):
        argument = None
    if argument is not None and isinstance(argument.default, int | float):
        return [], {RATE: float(argument.default)}
    return names[:1], {}


def decay_name(value: float | None) -> str:
    """Return the name of a kind of learning-rate decay.

    `value` is the argument `decay` of `training_schedule`. The value 0 has the name
    "linear", 1 has the name "cosine", 2 has the name "late linear", and None has the
    name "none". Other values are rounded down to 0, 1 or 2, so 1.7 means 1.

    Example:
      >>> decay_name(1.7)
      'cosine'
    """
    if value is None:
        return "none"
    return DECAYS[int(np.clip(np.floor(value), 0, len(DECAYS) - 1))]
