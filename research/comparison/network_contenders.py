"""Contenders on networks: a rule whose learning rate follows a schedule to the end."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from research import update_rules
from research.checks import check_count, check_instance
from research.comparison.contenders import Contender, make_contenders
from research.schedules import Schedule
from research.tuning.spaces import Range, Space
from research.types import Array, Params, Scalar

# Kinds of decay by their number. "late linear" is also known as warmup-stable-decay.
DECAYS = ("linear", "cosine", "late linear")
LATE = 0.2  # Share of the training in which the late linear decay falls.
SCHEDULE_SPACE: dict[str, Range] = {
    "warmup": Range(0.0, 0.3, "linear", 0.1),
    "decay": Range(0.0, float(len(DECAYS)), "linear", 1.5),
}
RATE_SPACES: dict[str, Space] = {
    "muon": {
        "learning_rate": Range(1e-3, 1.0),
        "adam_learning_rate": Range(1e-4, 1e-1),
    },
}
DEFAULT_RATE = Range(1e-4, 1.0)


def training_schedule(
    peak: ArrayLike, warmup: ArrayLike, decay: ArrayLike, num_steps: int
) -> Schedule:
    """Return a schedule whose learning rate reaches zero at the end of the training.

    η_t = peak min(1, (t + 1) / max(1, w)) d((t - w) / (T - w)), with T steps, w = warmup
    T, and d = 1 before the warm-up ends. The decay d(s) falls from 1 to 0:

    | decay | name | d(s) |
    |---|---|---|
    | 0 | linear | 1 - s |
    | 1 | cosine | (1 + cos π s) / 2 |
    | 2 | late linear (warmup-stable-decay) | min(1, (1 - s) / 0.2) |

    Args:
      peak: Largest learning rate; may be traced.
      warmup: Share of the training in which the rate rises, in [0, 1); may be traced.
      decay: Kind of decay. The number is rounded down to 0, 1 or 2, so that a search
        may draw it from [0, 3); may be traced.
      num_steps: Number T of steps.
    Returns:
      The schedule, t -> learning rate.
    References:
      Loshchilov & Hutter, SGDR, ICLR 2017 (cosine). Hu et al., MiniCPM,
      arXiv:2404.06395 (warmup-stable-decay).
    Example:
      >>> rate = training_schedule(1.0, 0.2, 0.0, 10)
      >>> print([round(float(rate(t)), 3) for t in (0, 1, 2, 6, 9)])
      [0.5, 1.0, 1.0, 0.5, 0.125]
    """
    check_count("num_steps", num_steps)

    def schedule(t: ArrayLike) -> Array:
        step = jnp.asarray(t, jnp.result_type(float))
        rising = jnp.asarray(warmup) * num_steps
        share = jnp.clip((step - rising) / (num_steps - rising), 0.0, 1.0)
        kinds = [1 - share, (1 + jnp.cos(jnp.pi * share)) / 2]
        kinds += [jnp.minimum(1.0, (1 - share) / LATE)]
        kind = jnp.clip(jnp.floor(decay), 0, len(DECAYS) - 1)
        fall = jnp.select([kind == number for number in range(len(DECAYS))], kinds)
        rise = jnp.minimum(1.0, (step + 1) / jnp.maximum(1.0, rising))
        return jnp.asarray(peak) * rise * fall

    return schedule


def muon_with_adam(
    learning_rate: Scalar | Schedule,
    adam_learning_rate: Scalar | Schedule = 1e-2,
) -> optax.GradientTransformation:
    """Return Muon for the matrices inside a network and Adam for the other leaves.

    Muon's update of a matrix has the root mean square 0.2 (`consistent_rms`), as in
    Moonlight (Liu et al., arXiv:2502.16982).

    Args:
      learning_rate: Learning rate of Muon.
      adam_learning_rate: Learning rate of Adam.
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


def _labels(params: Params) -> Any:
    return jax.tree.map(lambda leaf: "matrix" if leaf.ndim == 2 else "other", params)


def network_contenders(
    rules: Mapping[str, Any] | Sequence[str],
    *,
    spaces: Mapping[str, Space] | None = None,
) -> tuple[Contender, ...]:
    """Make contenders for networks: only the rate and its schedule are searched.

    The rate is searched in the rule's own range, or in 1e-4..1 if it has none. "muon"
    is `muon_with_adam`, whose two rates follow the same schedule.

    Args:
      rules: As for `make_contenders`.
      spaces: {rule: {hyper-parameter: Range}}. These ranges replace the default ranges
        of the rates.
    Returns:
      The contenders. Their search spaces contain the rates, `warmup` and `decay`.
      `scheduled` adds the schedule.
    Example:
      >>> muon, adam = network_contenders(["muon", "adam"])
      >>> list(muon.space), list(adam.space)
      (['learning_rate', 'adam_learning_rate', 'warmup', 'decay'], ['learning_rate', 'warmup', 'decay'])
    """
    made = make_contenders(rules)
    for name in spaces or ():
        if name not in [one.name for one in made]:
            raise ValueError(f"spaces names {name!r}, which does not take part.")
    return tuple(_on_networks(one, (spaces or {}).get(one.name)) for one in made)


def _on_networks(contender: Contender, given: Space | None) -> Contender:
    if not contender.space:
        return contender
    make_rule, name = contender.make_rule, contender.name
    if inspect.unwrap(make_rule) is inspect.unwrap(update_rules.muon):
        make_rule, name = muon_with_adam, "muon"
    rate = next(iter(contender.space))
    rates = given or RATE_SPACES.get(name) or {rate: contender.space[rate]}
    return contender._replace(make_rule=make_rule, space={**rates, **SCHEDULE_SPACE})


def scheduled(contender: Contender, num_steps: int) -> Contender:
    """Return a contender whose rates follow the schedule of a training.

    Args:
      contender: Result of `network_contenders`.
      num_steps: Length of the training, at whose end the rates are zero.
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

    def make_rule(**values: Any) -> optax.GradientTransformation:
        shape = (values.pop("warmup"), values.pop("decay"), num_steps)
        rates = {n: training_schedule(rate, *shape) for n, rate in values.items()}
        return contender.make_rule(**rates)

    return contender._replace(make_rule=make_rule)


def decay_name(value: float) -> str:
    """Return the name of a kind of decay.

    Example:
      >>> decay_name(1.7)
      'cosine'
    """
    return DECAYS[int(np.clip(np.floor(value), 0, len(DECAYS) - 1))]
