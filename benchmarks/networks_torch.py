"""Train the networks in PyTorch, eager and compiled, from our params."""
# pyright: reportMissingImports=false

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import peers_torch
from benchmarks.clock import seconds_of
from benchmarks.contender import Contender
from benchmarks.network_jobs import RATE, Job

TRIAL_STEPS = 10  # On which the number of threads is chosen.


def linear(layer: Any) -> nn.Linear:
    """Build a dense layer; our weights are transposed for it."""
    made = nn.Linear(*layer["weights"].shape, bias="bias" in layer)
    put(made.weight, np.asarray(layer["weights"]).T)
    if "bias" in layer:
        put(made.bias, layer["bias"])
    return made


def put(parameter: Any, array: Any) -> None:
    """Fill a parameter."""
    with torch.no_grad():
        parameter.copy_(torch.tensor(np.asarray(array).copy()))


def mlp(params: Any) -> nn.Module:
    """Build dense layers with relu between them."""
    layers = [linear(layer) for layer in params.values()]
    return nn.Sequential(
        *[part for layer in layers[:-1] for part in (layer, nn.ReLU())], layers[-1]
    )


class CNN(nn.Module):
    """A CNN with channels first, as in PyTorch.

    The rows of the dense layer are put into that order.
    """

    def __init__(self, params: Any):
        super().__init__()
        self.convolutions = nn.ModuleList(
            convolution(params[f"convolution_{i}"]) for i in (1, 2)
        )
        rows = (
            np.asarray(params["dense_1"]["weights"])
            .reshape(12, 12, 64, -1)
            .transpose(2, 0, 1, 3)
        )
        first = {
            "weights": rows.reshape(12 * 12 * 64, -1),
            "bias": params["dense_1"]["bias"],
        }
        self.dense = nn.Sequential(linear(first), nn.ReLU(), linear(params["dense_2"]))

    def forward(self, x: torch.Tensor):
        """Return the logits of images (n, 1, 28, 28)."""
        for layer in self.convolutions:
            x = F.relu(layer(x))
        return self.dense(torch.flatten(F.max_pool2d(x, 2), 1))


def convolution(layer: Any) -> nn.Conv2d:
    """Build a convolution of 3 x 3."""
    made = nn.Conv2d(*layer["weights"].shape[2:], 3)
    put(made.weight, np.asarray(layer["weights"]).transpose(3, 2, 0, 1))
    put(made.bias, layer["bias"])
    return made


class Recurrent(nn.Module):
    """A recurrent network with PyTorch's second bias beside the recurrent product.

    This bias is 0, and where ours has none, it never moves.
    """

    def __init__(self, params: Any, cell: str):
        super().__init__()
        layer, symbols = params["layer_1"], params["embedding"]["weights"]
        self.embedding = nn.Embedding(*symbols.shape)
        put(self.embedding.weight, symbols)
        width = layer["recurrent"]["weights"].shape[0]
        self.layer = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](
            symbols.shape[1], width, batch_first=True
        )
        put(self.layer.weight_ih_l0, np.asarray(layer["input"]["weights"]).T)
        put(self.layer.weight_hh_l0, np.asarray(layer["recurrent"]["weights"]).T)
        put(self.layer.bias_ih_l0, layer["input"]["bias"])
        put(self.layer.bias_hh_l0, np.zeros(layer["input"]["bias"].shape, np.float32))
        self.output = linear(params["output"])
        self.still = self.layer.bias_hh_l0
        self.moving = (
            width if cell == "gru" else 0
        )  # Of the recurrent bias, from its end.

    def forward(self, x: torch.Tensor):
        """Return the logits at every step."""
        return self.output(self.layer(self.embedding(x))[0])


class Transformer(nn.Module):
    """A Transformer of pre-norm blocks with PyTorch's fused attention."""

    def __init__(self, params: Any):
        super().__init__()
        self.tokens, self.positions = (
            embedding(params[name]["weights"]) for name in ("tokens", "positions")
        )
        self.blocks = nn.ModuleList(
            Block(params[name]) for name in params if name.startswith("block")
        )
        self.norm, self.output = (
            normalisation(params["normalisation"]),
            linear(params["output"]),
        )

    def forward(self, x: torch.Tensor):
        """Return the logits at every step."""
        x = self.tokens(x) + self.positions.weight[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.output(self.norm(x))


def embedding(weights: Any) -> nn.Embedding:
    """Build a table of vectors."""
    made = nn.Embedding(*weights.shape)
    put(made.weight, weights)
    return made


def normalisation(layer: Any) -> nn.LayerNorm:
    """Build a layer normalisation over the last axis."""
    made = nn.LayerNorm(len(layer["scale"]))
    put(made.weight, layer["scale"])
    put(made.bias, layer["bias"])
    return made


class Block(nn.Module):
    """A block of attention, then a network."""

    def __init__(self, params: Any):
        super().__init__()
        self.norms = nn.ModuleList(
            normalisation(params[f"normalisation_{i}"]) for i in (1, 2)
        )
        self.qkv, self.project = (
            linear(params["attention"][name]) for name in ("query_key_value", "output")
        )
        self.network = nn.Sequential(
            linear(params["dense_1"]), nn.GELU(), linear(params["dense_2"])
        )

    def forward(self, x: torch.Tensor):
        """Apply the block as in GPT-2."""
        n, length, width = x.shape
        q, k, v = (
            part.view(n, length, 4, width // 4).transpose(1, 2)
            for part in self.qkv(self.norms[0](x)).chunk(3, -1)
        )
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(seen.transpose(1, 2).reshape(n, length, width))
        return x + self.network(self.norms[1](x))


def build(job: Job) -> nn.Module:
    """Build the job's network with its first params."""
    if job.name in ("lstm", "gru"):
        return Recurrent(job.params, job.name)
    return {"mlp": mlp, "cnn": CNN, "transformer": Transformer}[job.name](job.params)


def contender(
    job: Job, name: str, loss_of: Callable[[nn.Module], Callable]
) -> Contender:
    """Build a training by PyTorch's fused Adam, over batches gathered beforehand.

    It has its better number of threads.
    """
    torch.set_num_threads(max(peers_torch.THREADS))
    network = build(job)
    start = copy.deepcopy(network.state_dict())
    loss = loss_of(network)
    x, y = (torch.tensor(np.stack(arrays)) for arrays in zip(*job.batches, strict=True))
    x = x.movedim(-1, 2).contiguous() if job.name == "cnn" else x
    batches = list(zip(x.unbind(), y.long().unbind(), strict=True))
    still = getattr(network, "still", None)

    def run(steps: int) -> np.ndarray:
        network.load_state_dict(start)
        adam = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
        seen = []
        for inputs, targets in batches[:steps]:
            adam.zero_grad(set_to_none=True)
            value = loss(inputs, targets)
            value.backward()
            if still is not None:
                still.grad[: len(still) - network.moving] = 0
            adam.step()
            seen.append(value.detach())
        return torch.stack(seen).numpy()

    first = seconds_of(lambda: run(1))
    threads = peers_torch.choose_threads(lambda: run(TRIAL_STEPS))

    def train() -> np.ndarray:
        torch.set_num_threads(threads)
        return run(job.steps)

    note = f"{peers_torch.in_threads(threads)}, fused Adam"
    return Contender(name, train, first, note)


def whole_loss(network: nn.Module) -> Callable:
    """Return (inputs, targets) -> mean cross-entropy over all predictions."""
    return lambda x, y: F.cross_entropy(network(x).flatten(0, -2), y.flatten())


def eager(job: Job) -> Contender:
    """Build the contender in PyTorch's eager mode."""
    return contender(job, "PyTorch eager", whole_loss)


def compiled(job: Job) -> Contender:
    """Build the contender with torch.compile of loss and gradient."""
    torch._dynamo.reset()
    return contender(
        job,
        "torch.compile",
        lambda network: torch.compile(whole_loss(network), dynamic=False),
    )
