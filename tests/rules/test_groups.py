"""Masks and groups: the table says what a mask does, a group's rule sees its leaves
alone, bad labels are named.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.update_rules import (
    adam,
    adamw,
    add_decayed_weights,
    by_group,
    checked_mask,
    clip_by_global_norm,
    gradient_descent,
    heavy_ball,
    lbfgs,
    masked_leaves,
    sam,
    svrg,
)

COMPILE_QUICKLY = True  # tests/conftest.py

PARAMS = {
    "hidden": {"w": jnp.array([[1.0, -2.0]]), "b": jnp.array([0.5])},
    "out": {"w": jnp.array(3.0), "b": jnp.zeros(0)},
}
LABELS = {"hidden": {"w": "fast", "b": "slow"}, "out": "slow"}


def walk(rule, num_steps=6, params=PARAMS):
    rule, rng = optax.with_extra_args_support(rule), np.random.default_rng(0)
    given = jax.tree.map(
        lambda x: jnp.asarray(rng.standard_normal((num_steps, *x.shape))), params
    )

    def step(carry, gradient):
        x, state = carry
        updates, state = rule.update(gradient, state, x)
        return (optax.apply_updates(x, updates), state), updates

    return jax.jit(lambda x: jax.lax.scan(step, (x, rule.init(x)), given)[1])(params)


def assert_same(found, expected, rtol=1e-13):
    chex.assert_trees_all_close(found, expected, rtol=rtol)


def by_name(params):
    return jax.tree_util.tree_map_with_path(
        lambda path, x: "fast" if path[-1].key == "w" else "slow", params
    )


@pytest.mark.on_ci(
    "labels by a function, which test_groups_may_be_nested_and_chained_and_swept has",
    but=r"prefix",
)
@pytest.mark.parametrize("labels", [LABELS, by_name], ids=["prefix", "function"])
def test_groups_equal_optax(labels):
    ours = by_group({"fast": adamw(0.1), "slow": heavy_ball(0.01)}, labels)
    theirs = optax.partition(
        {"fast": optax.adamw(0.1), "slow": optax.sgd(0.01, 0.9)}, labels
    )
    assert_same(walk(ours), walk(theirs))


def test_one_group_is_the_rule_itself():
    assert_same(walk(by_group({"all": adam(0.1)}, "all")), walk(adam(0.1)))


def test_a_group_sees_its_own_leaves_alone():
    """The clip of the whole gradient, inside a group, is the clip of the group's."""
    clip = optax.chain(clip_by_global_norm(0.5), gradient_descent(1.0))
    found = walk(by_group({"fast": clip, "slow": clip}, LABELS))
    alone = jax.tree.map(
        lambda u, label: u if label == "slow" else jnp.zeros_like(u),
        found,
        by_prefix(LABELS),
    )
    norms = jnp.sqrt(
        sum(jnp.sum(u.reshape(6, -1) ** 2, axis=1) for u in jax.tree.leaves(alone))
    )
    assert np.max(norms) == pytest.approx(0.5, rel=1e-14)
    state = by_group({"fast": heavy_ball(0.1), "slow": adam(0.1)}, LABELS).init(PARAMS)
    # Besides the constant rate, its own leaves alone.
    own = optax.tree_utils.tree_set(state.inner["fast"], learning_rate=None)
    shapes = [leaf.shape for leaf in jax.tree.leaves(own)]
    assert shapes == [PARAMS["hidden"]["w"].shape]


def by_prefix(labels):
    return {**labels, "out": {"w": labels["out"], "b": labels["out"]}}


def test_a_group_is_given_the_objective_of_its_own_leaves():
    """SAM on one group climbs along it alone, while the others stay where they are."""

    def f(x, indices=None):
        del indices
        return jnp.sum(x["a"] ** 4) * jnp.sum(jnp.cos(x["b"]))

    x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([0.5])}
    rule, g = (
        by_group(
            {"sharp": sam(0.1, 0.5), "plain": gradient_descent(0.1)},
            {"a": "sharp", "b": "plain"},
        ),
        jax.grad(f)(x),
    )
    updates, _ = rule.update(
        g, rule.init(x), x, value=f(x), grad=g, value_fn=f, indices=None
    )
    alone = sam(0.1, 0.5)
    expected, _ = alone.update(
        g["a"],
        alone.init(x["a"]),
        x["a"],
        value_fn=lambda a, indices=None: f({"a": a, "b": x["b"]}),
    )
    assert_same(updates, {"a": expected, "b": -0.1 * g["b"]})


def test_groups_may_be_nested_and_chained_and_swept():
    inner = by_group({"fast": heavy_ball(0.1), "slow": gradient_descent(0.1)}, by_name)
    nested = optax.chain(
        add_decayed_weights(0.1),
        by_group({"in": inner, "rest": adam(0.1)}, {"hidden": "in", "out": "rest"}),
    )
    flat = {"hidden": {"w": "fast", "b": "slow"}, "out": "rest"}
    plain = by_group(
        {"fast": heavy_ball(0.1), "slow": gradient_descent(0.1), "rest": adam(0.1)},
        flat,
    )
    assert_same(walk(nested), walk(optax.chain(add_decayed_weights(0.1), plain)))
    rates = jnp.array([0.1, 0.2])
    swept = jax.vmap(
        lambda rate: walk(by_group({"all": gradient_descent(rate)}, "all"))["hidden"][
            "w"
        ]
    )(rates)
    np.testing.assert_allclose(swept[1], 2 * swept[0], rtol=1e-14)


def test_bad_labels_are_named_with_their_leaves():
    rules = {"fast": adam(0.1), "slow": adam(0.01)}
    unknown = by_group(rules, {"hidden": {"w": "fats", "b": "slow"}, "out": "slow"})
    with pytest.raises(
        ValueError,
        match=r"no rule for hidden/w \('fats'\), but rules has 'fast', 'slow'",
    ):
        unknown.init(PARAMS)
    missing = by_group(rules, {"hidden": {"w": "fast"}, "out": "slow"})
    with pytest.raises(
        ValueError,
        match=r"labels do not fit the params: they have no entry for hidden/b\. Give",
    ):
        missing.init(PARAMS)
    misspelt = by_group(rules, {"hidden": "fast", "output": "slow"})
    with pytest.raises(
        ValueError,
        match="no entry for out/b, out/w, and the params have no leaf at output",
    ):
        misspelt.init(PARAMS)
    of_a_tree = by_group(rules, {"hidden": "fast"})
    with pytest.raises(ValueError, match="the params are one array, but labels have"):
        of_a_tree.init(PARAMS["hidden"]["w"])
    with pytest.raises(ValueError, match="at least one rule"):
        by_group({}, "all")


def test_table_of_a_mask_names_the_leaves_that_decay():
    mask = {"hidden": {"w": True, "b": False}, "out": True}
    table = masked_leaves(mask, PARAMS)
    rule = adamw(0.1, weight_decay=0.5, mask=mask)
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    full = jax.tree.map(lambda x: jnp.ones_like(x), PARAMS)
    updates, _ = rule.update(zero, rule.init(full), full)
    moved = {
        leaf.path: bool(np.any(u != 0))
        for leaf, u in zip(table.leaves, jax.tree.leaves(updates), strict=True)
    }
    said = {leaf.path: leaf.masked and 0 not in leaf.shape for leaf in table.leaves}
    assert (
        moved
        == said
        == {"hidden/b": False, "hidden/w": True, "out/b": False, "out/w": True}
    )
    lines = str(table).splitlines()
    assert [line.split()[0] for line in lines] == [
        "leaf",
        "hidden/b",
        "hidden/w",
        "out/b",
        "out/w",
    ]
    assert [line.split()[-1] for line in lines] == ["masked", "no", "yes", "yes", "yes"]
    shapes = jax.eval_shape(lambda: PARAMS)
    assert masked_leaves(mask, shapes) == table
    assert (
        str(masked_leaves(True, jnp.ones(2)))
        .splitlines()[1]
        .startswith("the only leaf  (2,)")
    )


def test_mask_of_the_wrong_structure_says_where():
    with pytest.raises(
        ValueError,
        match="mask does not fit the params: it has no entry for out/b, out/w",
    ):
        masked_leaves({"hidden": True}, PARAMS)
    with pytest.raises(
        ValueError,
        match=(
            "it has no entry for hidden/b, and the params have no leaf at hidden/bias"
        ),
    ):
        masked_leaves({"hidden": {"w": True, "bias": False}, "out": True}, PARAMS)
    with pytest.raises(
        TypeError, match="mask must hold True or False; got 'yes' at out"
    ):
        masked_leaves({"hidden": True, "out": "yes"}, PARAMS)
    rule = optax.masked(add_decayed_weights(0.1), checked_mask({"hidden": True}))
    with pytest.raises(ValueError, match="mask does not fit the params"):
        rule.init(PARAMS)


def test_a_rule_whose_label_no_leaf_has_is_not_called():
    x = {"w": jnp.ones(2)}
    rule = by_group({"a": gradient_descent(0.1), "b": lbfgs()}, {"w": "a"})
    updates, _ = rule.update(x, rule.init(x), x)
    np.testing.assert_allclose(updates["w"], [-0.1, -0.1])


def test_svrg_in_a_group_is_refused():
    x = {"a": jnp.array(1.0), "b": jnp.array(1.0)}
    rule = by_group(
        {"a": svrg(1.0, 10), "b": gradient_descent(0.1)}, {"a": "a", "b": "b"}
    )
    value_fn = lambda p, indices=None: p["a"] * p["b"]
    with pytest.raises(
        ValueError, match="svrg cannot be used for a group of the params"
    ):
        rule.update(
            jax.grad(value_fn)(x), rule.init(x), x, value_fn=value_fn, indices=None
        )
