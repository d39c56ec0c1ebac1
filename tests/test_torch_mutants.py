"""`verify_rule` on classes of PyTorch: they agree with their formulas, and mutants of
their own source are named.

Runs only where PyTorch is installed (tests/conftest.py), by `make test-torch`.
"""

import importlib
import inspect
import json
import types
from typing import Any, NamedTuple

import pytest

from research.cli import commands
from research.verification import PROBLEMS, verify_rule
from research.verification.rule_under_test import RuleError
from research.verification.torch_rules import torch_arguments

torch: Any = importlib.import_module("torch")
FEW = [PROBLEMS[name] for name in ("quadratic", "random_pytree")]
# Arguments with which the formula of a rule is that of PyTorch's class.
SAME = {
    "SGD": ("gradient_descent", {}),
    "Adam": ("adam", {}),
    "AdamW": ("adamw", {"weight_decay": 0.01}),
    "Adamax": ("adamax", {}),
    "Adagrad": (
        "adagrad",
        {"initial_accumulator_value": 0.0, "eps": 1e-10, "eps_in_sqrt": False},
    ),
    "Adadelta": ("adadelta", {}),
    "RMSprop": ("rmsprop", {"decay": 0.99, "eps_in_sqrt": False}),
    "NAdam": ("nadam", {"momentum_schedule": "torch"}),
    "RAdam": ("radam", {"eps_before_correction": True}),
    "Rprop": ("rprop", {}),
}


class Mutant(NamedTuple):
    """A class of PyTorch with a mistake.

    Attributes:
      optimizer: Name of the class.
      edits: Pairs (text, what replaces it) for the source of its module.
      rule, arguments: The reference.
      cause: What the cause must say.
    """

    optimizer: str
    edits: tuple[tuple[str, str], ...]
    cause: str
    rule: str = ""
    arguments: dict[str, Any] = {}


DENOM = "denom = (exp_avg_sq.sqrt() / bias_correction2_sqrt).add_(eps)"
SQUARES = "exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)"
MOMENTUM = ("momentum: float = 0,", "momentum: float = 0.9,")
DECOUPLED = (
    ("decoupled_weight_decay: bool = False,", "decoupled_weight_decay: bool = True,"),
    ("weight_decay: float = 0,", "weight_decay: float = 0.1,"),
)
OF_ADAMW: tuple[str, dict[str, Any]] = ("adamw", {"weight_decay": 0.1})
MUTANTS = [
    Mutant(
        "Adam",
        ((DENOM, "denom = (exp_avg_sq / bias_correction2).add_(eps).sqrt()"),),
        "ε is inside the root",
    ),
    Mutant(
        "Adam",
        ((DENOM, "denom = exp_avg_sq.sqrt().add_(eps) / bias_correction2_sqrt"),),
        "ε is added before the bias correction",
    ),
    Mutant(
        "Adam",
        (("step_size = lr / bias_correction1", "step_size = lr"),),
        "no bias correction of the first moment",
    ),
    Mutant(
        "Adam",
        (
            (
                "bias_correction2_sqrt = bias_correction2**0.5",
                "bias_correction2_sqrt = 1.0",
            ),
        ),
        "no bias correction of the second moment",
    ),
    Mutant(
        "Adam",
        (
            ("step_size = lr / bias_correction1", "step_size = lr"),
            (
                "bias_correction2_sqrt = bias_correction2**0.5",
                "bias_correction2_sqrt = 1.0",
            ),
        ),
        "no bias correction (",
    ),
    Mutant(
        "Adam",
        (("step = _get_value(step_t)", "step = _get_value(step_t) + 1"),),
        "the bias correction counts one step too many",
    ),
    Mutant(
        "Adam",
        ((DENOM, "denom = (exp_avg_sq / bias_correction2).add_(eps)"),),
        "the square root is missing",
    ),
    Mutant(
        "Adam",
        ((SQUARES, "exp_avg_sq.mul_(beta2).add_(grad, alpha=1 - beta2)"),),
        "the second moment averages g, not g²",
    ),
    Mutant(
        "Adam",
        (
            (
                SQUARES,
                "exp_avg_sq.mul_(beta2).addcmul_(exp_avg, exp_avg, value=1 - beta2)",
            ),
        ),
        "the second moment averages m², not g²",
    ),
    Mutant(
        "Adam",
        ((SQUARES, "exp_avg_sq.mul_(beta1).addcmul_(grad, grad, value=1 - beta1)"),),
        "the second moment decays by b1",
    ),
    Mutant(
        "Adam",
        (
            (
                "exp_avg.lerp_(grad, 1 - device_beta1)",
                "exp_avg.lerp_(grad, device_beta1)",
            ),
            (SQUARES, "exp_avg_sq.mul_(1 - beta2).addcmul_(grad, grad, value=beta2)"),
        ),
        "b1 and 1 - b1 are swapped",
    ),
    Mutant(
        "Adam",
        (("eps: float = 1e-8,", "eps: float = 1e-6,"),),
        "another value of an argument: eps=1e-06",
    ),
    Mutant(
        "Adam",
        (
            (
                *DECOUPLED,
                ("param.mul_(1 - lr * weight_decay)", "param.mul_(1 - weight_decay)"),
            )
        ),
        "the decay is not multiplied by the learning rate",
        *OF_ADAMW,
    ),
    Mutant(
        "Adam",
        (
            *DECOUPLED,
            (
                "param.mul_(1 - lr * weight_decay)",
                "grad = grad.add(param, alpha=weight_decay)",
            ),
        ),
        "the decay is coupled",
        *OF_ADAMW,
    ),
    Mutant(
        "SGD",
        (
            MOMENTUM,
            ("nesterov: bool = False,", "nesterov: bool = True,"),
            ("grad = grad.add(buf, alpha=momentum)", "grad = buf"),
        ),
        "it does not look ahead: this is the heavy ball",
        "nesterov",
    ),
    Mutant(
        "SGD",
        (MOMENTUM, ("param.add_(grad, alpha=-lr)", "param.add_(grad, alpha=lr)")),
        "they go up the gradient",
        "heavy_ball",
    ),
    Mutant(
        "SGD",
        (
            MOMENTUM,
            ("grad.detach().clone()", "grad.detach().clone().mul_(1 - momentum)"),
            ("add_(grad, alpha=1 - dampening)", "add_(grad, alpha=1 - momentum)"),
        ),
        "the gradient is damped by 1 - momentum",
        "heavy_ball",
    ),
    Mutant(
        "RMSprop",
        (
            (
                "square_avg.mul_(alpha).addcmul_(grad, grad, value=1 - alpha)",
                "square_avg.mul_(1 - alpha).addcmul_(grad, grad, value=alpha)",
            ),
        ),
        "decay and 1 - decay are swapped",
    ),
    Mutant(
        "RMSprop",
        (
            ("avg = square_avg.sqrt()", "avg = square_avg.add(eps).sqrt()"),
            ("avg = avg.add_(eps)", "pass"),
        ),
        "eps_in_sqrt=True",
    ),
    Mutant(
        "Adadelta",
        (
            (
                "acc_delta.mul_(rho).addcmul_(delta, delta, value=1 - rho)",
                "acc_delta.addcmul_(delta, delta)",
            ),
        ),
        "the steps are not averaged: their sum grows",
    ),
    Mutant(
        "NAdam",
        (
            (
                "mu_product_next = _get_value(mu_product) * mu_next",
                "mu_product_next = _get_value(mu_product)",
            ),
        ),
        "both bias corrections have the same t",
    ),
    Mutant(
        "RAdam",
        (
            (
                "param.add_(bias_corrected_exp_avg * lr, alpha=-1.0)",
                "param.add_(exp_avg * lr, alpha=-1.0)",
            ),
        ),
        "the first steps are not corrected",
    ),
    Mutant(
        "Adamax",
        (("exp_inf.mul_(beta2),", "exp_inf,"),),
        "the maximum does not decay",
    ),
    Mutant(
        "Rprop",
        (("grad[sign.eq(etaminus)] = 0", "pass"),),
        "it steps where the sign has changed (Rprop-)",
    ),
]


def mutated(mutant: Mutant) -> Any:
    """Return the class of a module of PyTorch after edits of the module's source."""
    module = inspect.getmodule(getattr(torch.optim, mutant.optimizer))
    assert module is not None
    source = inspect.getsource(module)
    for right, wrong in mutant.edits:
        assert right in source, right
        source = source.replace(right, wrong)
    copy = types.ModuleType(module.__name__)
    copy.__dict__["__package__"] = "torch.optim"
    exec(compile(source, "<mutant>", "exec"), copy.__dict__)
    return getattr(copy, mutant.optimizer)


@pytest.mark.parametrize("name", SAME)
def test_class_of_pytorch_is_its_formula(name):
    rule, arguments = SAME[name]
    found = verify_rule(f"torch.optim.{name}", rule, problems=FEW, **arguments)
    assert found.same, found


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.optimizer}: {m.cause}")
def test_mutant_of_a_class_is_named(mutant):
    rule, arguments = SAME[mutant.optimizer]
    if mutant.rule:
        rule, arguments = mutant.rule, mutant.arguments
    found = verify_rule(mutated(mutant), rule, problems=FEW, **arguments)
    assert not found.same
    assert mutant.cause in str(found.cause), found.cause


def test_there_are_twenty_mutants():
    assert len(MUTANTS) >= 20
    assert len({mutant.edits for mutant in MUTANTS}) == len(MUTANTS)


def test_small_updates_beside_large_params_are_rounding():
    """On gradients of sizes from e^-30 on, params of size 1 hide the smallest
    updates.
    """
    scales = [PROBLEMS["scales"]]
    assert verify_rule(torch.optim.SGD, "gradient_descent", problems=scales).same
    assert verify_rule("gradient_descent", torch.optim.SGD, problems=scales).same


def test_arguments_get_the_names_of_the_class():
    given = {"learning_rate": 0.1, "b1": 0.8, "eps": 1e-6, "mask": None}
    assert torch_arguments(torch.optim.Adam, given) == {
        "lr": 0.1,
        "betas": (0.8, 0.999),
        "eps": 1e-6,
    }
    found = verify_rule(
        torch.optim.Adam, "adam", problems=FEW, b1=0.5, b2=0.9, eps=1e-3
    )
    assert found.same


def test_class_that_raises_is_named_with_its_message():
    with pytest.raises(
        RuleError, match=r"the rule, Muon, raised ValueError on quadratic"
    ):
        verify_rule(torch.optim.Muon, "muon")


def test_default_dtype_of_pytorch_is_left_as_it_was():
    before = torch.get_default_dtype()
    verify_rule(torch.optim.NAdam, "nadam", problems=FEW[:1], momentum_schedule="torch")
    assert torch.get_default_dtype() is before


def test_command_prints_json_for_a_class(capsys):
    status = commands.main(
        ["verify", "torch.optim.Adam", "--against", "adam", "--json"]
    )
    found = json.loads(capsys.readouterr().out)
    assert status == 0
    assert found["same"]
    assert found["versions"]["torch"] == torch.__version__
    assert found["rule"] == "torch.optim.Adam"
