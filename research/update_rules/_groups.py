"""Masks over leaves, and separate rules for groups of parameters."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from research.checks import check_mapping, shown
from research.columns import aligned
from research.types import Params
from research.update_rules._checks import check_rule, checked
from research.update_rules._edges import (
    accepting_none,
    blanked,
    blanked_leaves,
    complete,
)

Labels = Any  # A pytree that is a prefix of the params, or params -> such a pytree.


class MaskedLeaf(NamedTuple):
    """Row of a MaskTable: a leaf of the params, and the value of the mask at this leaf.

    Attributes:
      path: Path of the leaf, such as "layer/weights".
      shape: Shape of the leaf.
      masked: Value of the mask at the leaf.
    """

    path: str
    shape: tuple[int, ...]
    masked: bool


class MaskTable(NamedTuple):
    """Printable table of the value of a mask at each leaf.

    Attributes:
      leaves: One MaskedLeaf per leaf, in the order of the params.
    """

    leaves: tuple[MaskedLeaf, ...]

    def __str__(self) -> str:
        rows = [("leaf", "shape", "masked")]
        rows += [
            (leaf.path, str(leaf.shape), "yes" if leaf.masked else "no")
            for leaf in self.leaves
        ]
        return "\n".join(aligned(rows))


def masked_leaves(mask: Any, params: Params) -> MaskTable:
    """Return a printable table that says at which leaves a mask is True.

    If the mask belongs to a weight decay, these leaves decay.

    Args:
      mask: Pytree of booleans that is a prefix of the params: one boolean may stand for
        a whole subtree. Or a function from the params to such a pytree.
      params: Params, or their shapes (jax.ShapeDtypeStruct).
    Returns:
      MaskTable with one row per leaf.
    Raises:
      ValueError, TypeError: The mask's structure is not a prefix of the structure of
        the params, or an entry is not a boolean. The message names the leaves of the
        params and the entries of the mask that do not fit.
    Example:
      >>> params = {
      ...     "layer": {"weights": np.zeros((2, 3)), "bias": np.zeros(3)},
      ...     "scale": np.zeros(()),
      ... }
      >>> print(
      ...     masked_leaves(
      ...         lambda params: jax.tree.map(lambda x: x.ndim > 1, params), params
      ...     )
      ... )
      leaf           shape   masked
      layer/bias     (3,)    no
      layer/weights  (2, 3)  yes
      scale          ()      no
    """
    covered = jax.tree.leaves(checked_mask(mask)(params))
    pairs = jax.tree_util.tree_leaves_with_path(params)
    rows = zip(pairs, covered, strict=True)
    return MaskTable(
        tuple(
            MaskedLeaf(_written(path), tuple(np.shape(x)), bool(on))
            for (path, x), on in rows
        )
    )


def checked_mask(
    mask: Any, name: str = "mask", entries_are: str = "True or False"
) -> Callable[[Params], Any]:
    """Convert a mask to a function that returns a boolean for every leaf of the params.

    The returned function also checks whether the mask fits the params. Its error
    messages name the leaves that do not fit.

    Args:
      mask: Pytree of booleans that is a prefix of the params: one boolean may stand for
        a whole subtree. Or a function from the params to such a pytree.
      name, entries_are: Texts for the error messages. `name` is the name of the
        argument that holds the mask. `entries_are` says which values an entry of the
        mask may have.
    Returns:
      Function (params) -> pytree of booleans with the structure of the params.
      optax.masked accepts this function. The function raises the same errors as
      `masked_leaves`.
    Raises:
      TypeError: mask is a pytree with an entry that is not a boolean.
    Example:
      >>> checked_mask({"w": True})({"w": 1.0, "b": 2.0})
      Traceback (most recent call last):
      ValueError: mask does not fit the params: it has no entry for b. Give a pytree ...
    """
    for path, entry in (
        [] if callable(mask) else jax.tree_util.tree_leaves_with_path(mask)
    ):
        if not isinstance(entry, bool | np.bool_):
            raise TypeError(
                f"{name} must hold {entries_are}; got {shown(entry)} at "
                f"{_written(path)}."
            )

    def at_every_leaf(params: Params):
        entries = mask(params) if callable(mask) else mask
        for path, entry in jax.tree_util.tree_leaves_with_path(entries):
            if not isinstance(entry, bool | np.bool_):
                raise TypeError(
                    f"{name} must hold {entries_are}; got {shown(entry)} at "
                    f"{_written(path)}."
                )
        return spread_labels(name, entries, params)

    return at_every_leaf


class GroupsState(NamedTuple):
    """State of `by_group`.

    Attributes:
      inner: Dict from the label of each group to the state of the group's rule.
    """

    inner: dict[str, optax.OptState]


@checked
def by_group(
    rules: Mapping[str, optax.GradientTransformation], labels: Labels
) -> optax.GradientTransformationExtraArgs:
    """Apply a separate rule to each group of leaves.

    Each leaf of the params has a label, which is the name of its group. The leaves with
    label l are updated by rules[l], which does not get the other leaves.
    optax.partition and torch's parameter groups do the same.

    Some rules need the extra arguments of update: the gradient `grad`, and the
    objective `value_fn` as a function of the params. The rule of a group gets only the
    leaves of `grad` that belong to this group. It gets value_fn as a function of the
    params of this group, with all other leaves fixed. Other extra arguments (value,
    indices) are passed on unchanged. In the rule of a group, `clip_by_global_norm` uses
    the norm of this group only. To clip by the norm of all leaves, chain
    `clip_by_global_norm` before this rule.

    Args:
      rules: Mapping from the label of a group, a str, to the rule of the group. If no
        leaf has the label of a rule, this rule is never called.
      labels: Pytree of labels that is a prefix of the params: one label may stand for a
        whole subtree. Or a function from the params to such a pytree.
    Returns:
      The rule for all groups.
    Raises:
      ValueError: rules is empty. Also raised by init and update if labels do not fit
        the structure of the params, or if a leaf's label is not in rules. The message
        names the leaves and labels that do not fit.
      TypeError: rules is not a mapping from labels to rules, or labels is a pytree with
        an entry that is not a str.
    Example:
      >>> from research.update_rules import gradient_descent
      >>> rule = by_group(
      ...     {"slow": gradient_descent(0.5), "still": gradient_descent(0.0)},
      ...     {"w": "slow", "b": "still"},
      ... )
      >>> x = {"w": np.float32(1.0), "b": np.float32(1.0)}
      >>> updates, _ = rule.update(
      ...     {"w": np.float32(2.0), "b": np.float32(2.0)}, rule.init(x), x
      ... )
      >>> print(updates["w"], abs(updates["b"]))
      -1.0 0.0
    """
    check_mapping("rules", rules, "labels to rules")
    if not callable(labels) and not all(
        isinstance(label, str) for label in jax.tree.leaves(labels)
    ):
        raise TypeError(
            "labels must be a pytree of names in rules, or a function that returns "
            f"one; got labels={shown(labels)}."
        )
    if not rules:
        raise ValueError("by_group needs at least one rule; got rules={}.")
    for label, rule in rules.items():
        check_rule(rule, f"rules[{label!r}]")
    served = {label: accepting_none(rule) for label, rule in rules.items()}

    def labelled(params: Params):
        found = spread_labels(
            "labels", labels(params) if callable(labels) else labels, params
        )
        pairs = jax.tree_util.tree_leaves_with_path(found)
        unknown = [
            f"{_written(path)} ({label!r})"
            for path, label in pairs
            if label not in served
        ]
        if unknown:
            raise ValueError(
                f"labels must be names in rules; no rule for {', '.join(unknown)}, but "
                f"rules has {', '.join(map(repr, served))}."
            )
        return found

    def init(params: Params):
        found = labelled(params)
        given = set(jax.tree.leaves(found))
        inits = {
            label: rule.init if label in given else optax.init_empty_state
            for label, rule in served.items()
        }
        return GroupsState(
            {label: init(_part(found, label, params)) for label, init in inits.items()}
        )

    def update(
        updates: Params,
        state: Any,
        params: Params | None = None,
        *,
        grad: Any = None,
        value_fn: Any = None,
        **extra: Any,
    ):
        found = labelled(updates if params is None else params)
        # A None may stand for a part of the params; each of its leaves gets one.
        spread = updates if params is None else blanked_leaves(updates, params)
        if grad is not None and params is not None:
            grad = blanked_leaves(grad, params)
        parts, states = {}, {}
        for label, rule in served.items():
            states[label] = state.inner[label]
            if label not in jax.tree.leaves(found):
                continue
            own = {
                "grad": None if grad is None else _part(found, label, grad),
                "value_fn": None,
            }
            if value_fn is not None and params is not None:
                own["value_fn"] = _restricted(value_fn, found, label, params)
            of_params = None if params is None else _part(found, label, params)
            parts[label], states[label] = rule.update(
                _part(found, label, spread),
                state.inner[label],
                of_params,
                **own,
                **extra,
            )
        return blanked(_joined(found, parts), updates), GroupsState(states)

    return complete(optax.GradientTransformationExtraArgs(init, update), sees_none=True)


def _part(labels: Labels, label: str, tree: Params) -> Params:
    """Return the tree with optax's MaskedNode at each leaf without the given label."""
    return jax.tree.map(
        lambda own, leaf: leaf if own == label else optax.MaskedNode(), labels, tree
    )


def _joined(labels: Labels, parts: Mapping[str, Params]) -> Params:
    names, structure = jax.tree.flatten(labels)
    flat = {label: structure.flatten_up_to(part) for label, part in parts.items()}
    return structure.unflatten([flat[name][k] for k, name in enumerate(names)])


def _restricted(
    value_fn: Callable[..., Any], labels: Labels, label: str, params: Params
) -> Callable[..., Any]:
    @functools.wraps(value_fn)
    def of_part(part: Params, *drawn: Any, **named: Any):
        whole = jax.tree.map(
            lambda own, new, old: new if own == label else old, labels, part, params
        )
        return value_fn(whole, *drawn, **named)

    of_part.is_of_a_part = True  # type: ignore[attr-defined]
    return of_part


def spread_labels(name: str, prefix: Any, params: Params) -> Any:
    """Expand a prefix of params: give each leaf the entry of the prefix that covers it.

    Args:
      name: Name of the argument that holds the prefix, for the error message.
      prefix: Pytree that is a prefix of the params.
      params: Params, or another pytree of their structure.
    Returns:
      Pytree of the structure of params, with an entry of prefix at each leaf.
    Raises:
      ValueError: The structure of prefix is not a prefix of the structure of the
        params. The message names the leaves of params without an entry, and the
        entries of prefix without a leaf.
    Example:
      >>> spread_labels("labels", {"layer": "slow"}, {"layer": {"w": 1.0, "b": 2.0}})
      {'layer': {'b': 'slow', 'w': 'slow'}}
    """
    entries = {
        path: entry for path, entry in jax.tree_util.tree_leaves_with_path(prefix)
    }
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    above = [
        next((path[:k] for k in range(len(path) + 1) if path[:k] in entries), None)
        for path, _ in leaves
    ]
    does, has = ("does", "it has") if name == "mask" else ("do", "they have")
    faults = {
        f"{has} no entry for": [
            _written(path)
            for (path, _), found in zip(leaves, above, strict=True)
            if found is None
        ],
        "the params have no leaf at": [
            _written(path) for path in entries if path not in set(above)
        ],
    }
    sentences = [
        f"{fault} {', '.join(paths)}" for fault, paths in faults.items() if paths
    ]
    if sentences and len(leaves) == 1 and not leaves[0][0]:
        raise ValueError(
            f"{name} {does} not fit the params: the params are one array, but {name} "
            f"{'has' if name == 'mask' else 'have'} the structure {shown(prefix)}. "
            "Give one entry, without a container around it."
        )
    if sentences:
        raise ValueError(
            f"{name} {does} not fit the params: "
            f"{', and '.join(sentences)}. Give a pytree of the same structure, or a "
            "prefix."
        )
    return structure.unflatten([entries[path] for path in above if path is not None])


def _written(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/") or "the only leaf"
