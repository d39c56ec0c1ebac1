"""Fifteen recorded networks: outputs, loss and every gradient equal torch's to 1e-12,
in float64.

`OURS[kind](case)` is a function of the recorded parameters and inputs, in torch's
layouts, which it maps to ours: so the gradients come back in torch's layouts too, and
whatever the mapping adds up (torch has two biases where one is enough) gets its share.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import losses, models
from research.models._convolution import convolution
from research.models.pooling import average_pool, max_pool
from research.models.transformer import transformer_decoder

COMPILE_QUICKLY = True  # tests/conftest.py

BOUND = 1e-12
TEXT = (Path(__file__).parents[1] / "reference" / "models.json").read_text(
    encoding="utf-8"
)
CASES = {case["id"]: case for case in json.loads(TEXT)["cases"]}


def mlp(case):
    name = case["definition"].split("h_k = ")[1].split("(")[0].removesuffix("_exact")

    def predict(params, inputs):
        layers = range(1, len(params) // 2 + 1)
        sizes = [inputs["x"].shape[-1], *(params[f"b{k}"].size for k in layers)]
        ours = {
            f"dense_{k}": {"weights": params[f"W{k}"], "bias": params[f"b{k}"]}
            for k in layers
        }
        return models.mlp(sizes, activation=name).apply(ours, inputs["x"])

    return predict


def cnn(case):
    activate, pool = (
        (jnp.tanh, average_pool)
        if case["id"] == "cnn_tanh_avg"
        else (jax.nn.relu, max_pool)
    )
    padding = 1 if "zero padding 1" in case["definition"] else "valid"

    def predict(params, inputs):
        kernels = [
            params[f"conv{k}_w"].transpose(2, 3, 1, 0) for k in (1, 2)
        ]  # From (out, in, height, width).
        x = inputs["x"].transpose(0, 2, 3, 1)
        x = pool(
            activate(convolution(x, kernels[0], params["conv1_b"], padding=padding))
        )
        x = activate(convolution(x, kernels[1], params["conv2_b"], padding="valid"))
        height, width, channels = x.shape[1:]  # torch flattens channels first.
        weights = (
            params["dense_w"].reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
        )
        return models.dense(
            x.reshape(len(x), -1),
            weights.reshape(-1, weights.shape[-1]),
            params["dense_b"],
        )

    return predict


def recurrent(case):
    kind = case["id"].partition("_")[0]
    cell = {"rnn": "vanilla"}.get(kind, kind)

    def predict(params, inputs):
        num_hidden, num_outputs = params["out_w"].shape
        input_bias, recurrent_bias, bias = params["b_ih"], params["b_hh"], {}
        if (
            cell == "gru"
        ):  # Its last block has two biases, which the reset gate keeps apart.
            bias = {"bias": recurrent_bias[2 * num_hidden :]}
            recurrent_bias = recurrent_bias.at[2 * num_hidden :].set(0)
        ours = {
            "layer_1": {
                "input": {
                    "weights": params["w_ih"].T,
                    "bias": input_bias + recurrent_bias,
                },
                "recurrent": {"weights": params["w_hh"].T} | bias,
            },
            "output": {"weights": params["out_w"], "bias": params["out_b"]},
        }
        network = models.recurrence(
            params["w_ih"].shape[1], num_hidden, num_outputs, cell=cell
        )
        carry = tuple(inputs[name] for name in ("h0", "c0") if name in inputs)
        outputs, _ = network.advance(ours, inputs["x"], (carry,))
        return outputs if "on every step" in case["definition"] else outputs[..., -1, :]

    return predict


def transformer(case):
    words = case["definition"].split()
    activation = next(
        name
        for name in ("gelu_exact", "gelu_tanh", "relu")
        if f"{name}(. w1" in case["definition"]
    )
    num_heads, tied = (
        int(words[words.index("heads") - 1]),
        "(tied)" in case["definition"],
    )

    def predict(params, inputs):
        vocabulary_size, width = params["tok_emb"].shape
        model = transformer_decoder(
            vocabulary_size,
            len(params["pos_emb"]),
            width=width,
            hidden=params["b1"].size,
            num_layers=1,
            num_heads=num_heads,
            tied=tied,
            activation=activation.removesuffix("_exact"),
        )
        return model.apply(transformer_params(params), inputs["tokens"])

    return predict


def transformer_params(params):
    side_by_side = lambda *names: jnp.concatenate(
        [params[name] for name in names], axis=-1
    )
    layer = lambda weights, bias=None: (
        {"weights": weights} | ({} if bias is None else {"bias": bias})
    )
    if "bq" not in params:  # A bias of 0 is none.
        params = params | dict.fromkeys(
            ("bq", "bk", "bv", "bo"), jnp.zeros(params["wo"].shape[1])
        )
    ours = {
        "tokens": layer(params["tok_emb"]),
        "positions": layer(params["pos_emb"]),
        "block_1": {
            "normalisation_1": {"scale": params["ln1_g"], "bias": params["ln1_b"]},
            "attention": {
                "query_key_value": layer(
                    side_by_side("wq", "wk", "wv"), side_by_side("bq", "bk", "bv")
                ),
                "output": layer(params["wo"], params["bo"]),
            },
            "normalisation_2": {"scale": params["ln2_g"], "bias": params["ln2_b"]},
            "dense_1": layer(params["w1"], params["b1"]),
            "dense_2": layer(params["w2"], params["b2"]),
        },
        "normalisation": {"scale": params["lnf_g"], "bias": params["lnf_b"]},
    }
    return ours | ({"output": layer(params["head_w"])} if "head_w" in params else {})


OURS = {
    "mlp": mlp,
    "cnn": cnn,
    "rnn": recurrent,
    "gru": recurrent,
    "lstm": recurrent,
    "transformer": transformer,
}


def mean_loss(case, outputs, targets):
    """The recorded loss, by ours of one example."""
    if "labels" in targets:
        return jnp.mean(
            jax.vmap(losses.softmax_cross_entropy)(outputs, targets["labels"])
        )
    if "next_tokens" in targets:  # A negative label does not count.
        labels = jnp.where(
            targets.get("loss_mask", jnp.ones_like(targets["next_tokens"])) > 0,
            targets["next_tokens"],
            -1,
        )
        return losses.sequence_cross_entropy(
            outputs.reshape(-1, outputs.shape[-1]), labels.reshape(-1)
        )
    of_squares = lambda prediction, target: (
        2 * losses.squared_error(prediction, target)
    )  # Ours has a half.
    one = losses.logistic if "cross-entropy" in case["definition"] else of_squares
    return jnp.mean(jax.vmap(one)(outputs.reshape(-1), targets["y"].reshape(-1)))


def recorded(tree):
    return {name: jnp.array(leaf) for name, leaf in tree.items()}


@functools.cache
def found(name):
    """(outputs, loss, gradients of the parameters, gradients of the inputs) by our
    functions.
    """
    case = CASES[name]
    predict = OURS[case["id"].partition("_")[0]](case)
    params, inputs, targets = (
        recorded(case[part]) for part in ("params", "inputs", "targets")
    )
    fixed = {
        key: leaf
        for key, leaf in inputs.items()
        if jnp.issubdtype(leaf.dtype, jnp.integer)
    }
    moving = {key: leaf for key, leaf in inputs.items() if key not in fixed}

    def objective(params, moving):
        outputs = predict(params, moving | fixed)
        return mean_loss(case, outputs, targets), outputs

    run = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
    # With less thought for speed, since compiling is most of what these tests cost. At
    # level 0 XLA's CPU backend may give NaN for the derivative of a maximum (of jnp.max
    # too), 0.7.2 to 0.12.
    run = jax.jit(
        run,
        compiler_options={
            "xla_backend_optimization_level": 1 if name.startswith("cnn") else 0
        },
    )
    (value, outputs), gradients = run(params, moving)
    return jax.device_get((outputs, value, *gradients))


@pytest.mark.on_ci(
    "an MLP, a vanilla network and a Transformer; test_linen_twins.py has an MLP, and "
    "test_recurrent.py and test_transformer.py have the others written out",
    but="lstm_wide",
)
@pytest.mark.thorough(
    (
        "the other settings, and the CNN and the GRU, which test_cnn.py and "
        "test_linen_twins.py have"
    ),
    but="mlp_tanh|rnn_all|lstm_wide|transformer_gelu",
)
@pytest.mark.parametrize("name", CASES)
def test_outputs_and_loss_are_torch_s(name):
    outputs, value, *_ = found(name)
    np.testing.assert_allclose(outputs, CASES[name]["outputs"], rtol=BOUND, atol=BOUND)
    np.testing.assert_allclose(value, CASES[name]["loss"], rtol=BOUND)


@pytest.mark.on_ci(
    "an MLP and a vanilla network; test_linen_twins.py has an MLP",
    but="lstm_wide|transformer_gelu",
)
@pytest.mark.thorough(
    (
        "the other settings, and the CNN and the GRU, which test_cnn.py and "
        "test_linen_twins.py have"
    ),
    but="mlp_tanh|rnn_all|lstm_wide|transformer_gelu",
)
@pytest.mark.parametrize("name", CASES)
def test_every_gradient_is_torch_s(name):
    _, _, *gradients = found(name)
    for ours, theirs in zip(
        gradients, (CASES[name]["grad_params"], CASES[name]["grad_inputs"]), strict=True
    ):
        assert ours.keys() == theirs.keys()
        for key, leaf in ours.items():
            np.testing.assert_allclose(
                leaf, np.array(theirs[key]), rtol=BOUND, atol=BOUND, err_msg=key
            )


def test_the_bound_sees_the_approximation_of_gelu():
    """So that it is no empty word: the approximation is off by at most 5e-4."""
    case = CASES["mlp_gelu_bce"]
    approximate = mlp(
        case | {"definition": case["definition"].replace("gelu_exact", "gelu_tanh")}
    )
    outputs = jax.jit(approximate)(recorded(case["params"]), recorded(case["inputs"]))
    assert 1e-6 < np.abs(outputs - np.array(case["outputs"])).max() < 1e-2
