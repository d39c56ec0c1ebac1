"""Find the rule that FILE.py:name, optax.NAME, PACKAGE.CLASS or NAME means."""

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from research.cli import user_code
from research.naming import nearest

# Kinds of values, with the words in an annotation that allow them.
KINDS = {str: ("str",), dict: ("dict", "Mapping")} | dict.fromkeys(
    (list, tuple), ("list", "tuple", "Sequence")
)


class Named(NamedTuple):
    """A rule or a constructor of rules, with its name and the names of its arguments.

    Attributes:
      name: Name as the user wrote it.
      rule: Gradient transformation, or constructor whose first argument is the learning
        rate.
      arguments: Names of the constructor's arguments, except the learning rate. None if
        the constructor accepts any name.
      required: Names of those `arguments` that have no default value.
    """

    name: str
    rule: Any
    arguments: tuple[str, ...] | None
    required: tuple[str, ...]


def find(word: str) -> Named:
    """Look up the rule that a command-line argument names.

    Args:
      word: Argument of the form "FILE.py:name", "optax.NAME" or "optax.contrib.NAME",
        the name of a rule of this package, or the dotted name of a subclass of
        `torch.optim.Optimizer`, such as "torch.optim.Adam".
    Returns:
      The rule, with the names of its arguments other than the learning rate.
    Raises:
      OSError, ValueError, TypeError: The file or the name does not exist, importing the
        file fails, or the object with this name is not a rule. For an unknown name, the
        message suggests the most similar name.
    Example:
      >>> find("optax.sgd").arguments
      ('momentum', 'nesterov', 'accumulator_dtype')
      >>> find("optax.addam")
      Traceback (most recent call last):
      ValueError: Unknown rule optax.addam. Did you mean optax.adam?
    """
    from research.update_rules import ALIASES, UPDATE_RULES
    from research.verification.rule_under_test import is_made

    if ".py" in word:
        neither = "neither functions nor an optax.GradientTransformation"
        rule = user_code.in_file(
            word, "rule", _may_be_a_rule, neither, _is_likely_a_rule
        )
        return _described(word, rule)
    if word.partition(".")[0] == "optax":
        rule = _in_optax(word)
    elif "." in word:
        return _described(word, _in_torch(word))
    elif word in UPDATE_RULES:
        rule = UPDATE_RULES[word]
    else:
        known = [*UPDATE_RULES, *(f"optax.{name}" for name in _rules_of("optax"))]
        close = (
            f"Did you mean {ALIASES[word]}?"
            if word in ALIASES
            else nearest(word, known)
        )
        hint = (
            close
            if close.startswith("Did")
            else f"Choose from {', '.join(UPDATE_RULES)}, optax.NAME or FILE.py:name."
        )
        raise ValueError(f"Unknown rule {word!r}. {hint}")
    if not is_made(rule) and not _takes_a_rate(rule):
        raise TypeError(
            f"{word} is not an update rule, because its first argument is not a "
            "learning rate. Name an update rule such as optax.adam."
        )
    return _described(word, rule)


def arguments(words: Sequence[str]) -> dict[str, Any]:
    """Parse texts such as "b1=0.8", and return the values by name.

    A value that is not a Python literal stays a text.

    Raises:
      ValueError: A text is not NAME=VALUE, or a name occurs twice.
    Example:
      >>> arguments(["b1=0.8", "nesterov=True", "mu_dtype=bfloat16"])
      {'b1': 0.8, 'nesterov': True, 'mu_dtype': 'bfloat16'}
    """
    found = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (equals and name.isidentifier() and text):
            raise ValueError(
                f"--argument must be NAME=VALUE, such as b1=0.8; got {word!r}."
            )
        if name in found:
            raise ValueError(f"--argument sets {name} twice. Keep one of the two.")
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[name] = text
    return found


def check_arguments(
    named: Named, given: dict[str, Any], *, all_taken: bool
) -> dict[str, Any]:
    """Select the given arguments that a constructor accepts.

    Args:
      named: The rule or constructor, from `find`.
      given: Values by name.
      all_taken: If True, an argument that the constructor does not accept raises an
        error. If False, such an argument is left out.
    Returns:
      The accepted arguments, values by name. A constructor with **kwargs accepts all
      given arguments.
    Raises:
      ValueError: An argument without a default value is missing, or "learning_rate" is
        given, which has its own flag, or `all_taken` is True and the constructor does
        not accept an argument. For such an argument, the message suggests the most
        similar name.
      TypeError: A text, list, tuple or dict is given for an argument whose default is a
        number.
    """
    _check_numbers(named, given)
    missing = [name for name in named.required if name not in given]
    if missing:
        raise ValueError(
            f"{named.name} needs a value for {missing[0]}. Pass --argument "
            f"{missing[0]}=VALUE."
        )
    if "learning_rate" in given and "learning_rate" not in (named.arguments or ()):
        raise ValueError(
            "The learning rate is set by --learning-rate RATE, not by --argument."
        )
    if named.arguments is None:
        return given
    strange = [name for name in given if name not in named.arguments]
    if strange and all_taken:
        hint = (
            nearest(strange[0], named.arguments)
            if named.arguments
            else "It takes no arguments."
        )
        raise ValueError(f"{named.name} has no argument {strange[0]}. {hint}")
    return {name: value for name, value in given.items() if name in named.arguments}


def _check_numbers(named: Named, given: dict[str, Any]) -> None:
    """Raise TypeError for a text or a list in the place of a number.

    If the default value of an argument is a number, a given text or list is refused,
    unless the annotation of the argument allows it.
    """
    try:
        parameters = inspect.signature(named.rule).parameters
    except (TypeError, ValueError):  # A rule that is already built.
        return
    for name, value in given.items():
        parameter, allowing = parameters.get(name), KINDS.get(type(value))
        if parameter is None or allowing is None:
            continue
        default, annotation = parameter.default, str(parameter.annotation)
        is_number = isinstance(default, int | float) and not isinstance(default, bool)
        if is_number and not any(word in annotation for word in allowing):
            raise TypeError(
                f"--argument {name} must be a number, as its default {default} is; got "
                f"{name}={value!r}."
            )


def _described(word: str, rule: Any) -> Named:
    from research.verification.rule_under_test import is_made
    from research.verification.torch_rules import is_torch_class

    if is_made(rule):
        return Named(word, rule, (), ())
    if is_torch_class(rule):
        return _described_torch(word, rule)
    if not callable(rule):
        raise TypeError(
            f"{word} is not an update rule but a value of type {type(rule).__name__}. "
            "Name an optax.GradientTransformation, or a function that takes a "
            "learning rate and returns one."
        )
    try:
        parameters = list(inspect.signature(rule).parameters.values())
    except (TypeError, ValueError):  # Some callables have no signature.
        return Named(word, rule, None, ())
    if not parameters or parameters[0].kind in (
        parameters[0].KEYWORD_ONLY,
        parameters[0].VAR_KEYWORD,
    ):
        raise TypeError(
            f"{word} must take the learning rate as its first argument, of "
            "any name; it has no positional argument."
        )
    rest = [
        p for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return Named(
        word,
        rule,
        None if anything else tuple(p.name for p in rest),
        tuple(p.name for p in rest if p.default is p.empty),
    )


def _described_torch(word: str, optimizer: Any) -> Named:
    """Return a class of optimizers of PyTorch with the names of its arguments.

    The arguments b1, b2 and b3 are added; they stand for the entries of `betas`.
    """
    from research.verification.torch_rules import BETAS, RATES

    parameters = list(inspect.signature(optimizer).parameters.values())[1:]
    names = [p.name for p in parameters if p.name not in RATES]
    required = [p.name for p in parameters if p.default is p.empty]
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    extra = BETAS if "betas" in names else ()
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    variable = {p.name for p in parameters if p.kind in kinds} | set(RATES)
    return Named(
        word,
        optimizer,
        None if anything else (*names, *extra),
        tuple(name for name in required if name not in variable),
    )


def _in_torch(word: str) -> Any:
    from research.verification.rule_under_test import named
    from research.verification.torch_rules import is_torch_class

    if word.partition(".")[0] == "torch" and importlib.util.find_spec("torch") is None:
        raise ValueError(
            f"PyTorch is not installed, so that {word} cannot be verified. Install the "
            "package torch."
        )
    found = named(word)
    if not is_torch_class(found):
        raise TypeError(
            f"{word} is not an update rule: it is neither a rule of optax nor a "
            "subclass of torch.optim.Optimizer. Name an update rule such as "
            "optax.adam, torch.optim.Adam or FILE.py:name."
        )
    return found


def _in_optax(word: str) -> Any:
    package, _, name = word.rpartition(".")
    known = {f"{p}.{n}" for p in ("optax", "optax.contrib") for n in _rules_of(p)}
    if package in ("optax", "optax.contrib"):
        found = getattr(importlib.import_module(package), name, None)
        if found is not None and not inspect.ismodule(found):
            return found
    hint = nearest(word, sorted(known))
    raise ValueError(
        f"Unknown rule {word}. "
        f"{hint if hint.startswith('Did') else 'Name one such as optax.adam.'}"
    )


def _rules_of(package: str) -> list[str]:
    """Return the names of a package's functions that take a learning rate first."""
    module = importlib.import_module(package)
    public = [
        name
        for name in dir(module)
        if not name.startswith("_") and inspect.isfunction(getattr(module, name))
    ]
    return [name for name in public if _takes_a_rate(getattr(module, name))]


def _takes_a_rate(rule: Any) -> bool:
    try:
        return "learning_rate" in next(iter(inspect.signature(rule).parameters), "")
    except (TypeError, ValueError):
        return False


def _may_be_a_rule(value: Any) -> bool:
    from research.verification.rule_under_test import is_made
    from research.verification.torch_rules import is_torch_class

    if inspect.isclass(value):
        return is_torch_class(value)
    return inspect.isfunction(value) or is_made(value)


def _is_likely_a_rule(value: Any) -> bool:
    """Return False for a function whose first argument is not named like a rate.

    Such a function is probably not a rule. For all other values, return True.
    """
    if not inspect.isfunction(value):
        return True
    first = next(iter(inspect.signature(value).parameters), "")
    return "rate" in first or first in ("lr", "eta", "alpha", "step_size")


def constructor(named: Named, given: dict[str, Any]) -> Callable[..., Any] | Any:
    """Return the rule in the form that `verify_rule` takes.

    `named` is a rule or a constructor of rules, with its name. A rule is returned in a
    wrapper. At each call of the rule, the wrapper checks that updates and state keep
    their structure, shapes and dtypes. Error messages contain the name of the rule. For
    a constructor, the result is a function of the learning rate that returns a rule in
    such a wrapper. This function passes the learning rate and the arguments `given` to
    the constructor, and ignores the keyword arguments that `verify_rule` passes. An
    optimizer class of PyTorch is returned unchanged.
    """
    from research.verification.rule_under_test import is_made, made
    from research.verification.torch_rules import is_torch_class

    if is_torch_class(named.rule):
        return named.rule
    if is_made(named.rule):
        return made(named.rule, 0.0, {}, named.name)
    return lambda rate, **_: made(named.rule, rate, given, named.name)
