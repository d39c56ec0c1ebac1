"""Make and check the rule of a user. The errors name this rule."""

import functools
import hashlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import optax

from research.descent._step import check_updates
from research.naming import known_names
from research.tracing import LOOKS_AT_VALUES
from research.types import Params
from research.verification.card import Constructor

Subject = optax.GradientTransformation | Constructor

OURS = Path(__file__).parents[1]


class RuleError(ValueError):
    """Error if a rule raises an exception while it is built or run.

    The message names the rule, and contains the message of the exception (or advice, if
    the rule reads values of traced arrays).
    """


class NoRuleError(TypeError):
    """Error if an argument is not a rule, or if a rule changes shapes or dtypes.

    The updates of a rule must have the shapes, dtypes and structure of the params. Each
    new state must have the shapes, dtypes and structure of the state before it. The
    message names the rule, and says what was given or what the rule returned.
    """


def is_made(rule: Any) -> bool:
    """Return whether the argument is a gradient transformation, not a constructor.

    Example:
      >>> is_made(optax.adam), is_made(optax.adam(0.1))
      (False, True)
    """
    if inspect.isclass(rule):
        return (
            False  # A class is a constructor: called with a rate, it may make a rule.
        )
    return hasattr(rule, "init") and hasattr(rule, "update")


def named(word: str) -> Any:
    """Return the object with a dotted name, such as "optax.adam".

    Args:
      word: The dotted name: the name of a module, a dot, and a name in this module.
    Returns:
      The object with that name.
    Raises:
      ValueError: `word` is not a dotted name, there is no such module, or the module
        has no such name. The message says which.
      ModuleNotFoundError: The module imports another module that is not installed.
    Example:
      >>> named("optax.adam") is optax.adam
      True
      >>> named("optax.addam")
      Traceback (most recent call last):
      ValueError: optax has no 'addam'; did you mean 'adam'?
    """
    module, names = _imported(word)
    found = module
    for k, name in enumerate(names):
        if not hasattr(found, name):
            above = ".".join([module.__name__, *names[:k]])
            hint = known_names(
                name, [n for n in dir(found) if not n.startswith("_")]
            ).split(" Known:")[0]
            raise ValueError(f"{above} has no {name!r}{hint}")
        found = getattr(found, name)
    return found


def _imported(word: str) -> tuple[Any, list[str]]:
    """Return the module named by the longest prefix of a dotted name, and the rest."""
    parts = word.split(".")
    if not all(part.isidentifier() for part in parts):
        raise ValueError(
            f"a rule must have a dotted name, such as 'optax.adam'; got {word!r}."
        )
    for k in range(len(parts), 0, -1):
        name = ".".join(parts[:k])
        try:
            return importlib.import_module(name), parts[k:]
        except ModuleNotFoundError as problem:
            # Re-raise if the missing module is one that the named module imports.
            if problem.name != name and not name.startswith(f"{problem.name}."):
                raise
    raise ValueError(
        f"the module {parts[0]!r} of {word!r} is not installed. Install its package, "
        "or pass the rule itself."
    )


def made(
    rule: Any, rate: float, arguments: dict[str, Any], name: str = "the rule"
) -> optax.GradientTransformationExtraArgs:
    """Add checks to a rule, or to the rule that a constructor builds.

    The error messages contain the name of the rule.

    Args:
      rule: A gradient transformation, or a constructor whose first argument is the
        learning rate.
      rate, arguments: Learning rate and other arguments for the constructor.
      name: Name of the rule in messages.
    Returns:
      The rule with checks. Its `update` raises NoRuleError if updates or state do not
      keep structure, shapes and dtypes. Its `init` and `update` raise RuleError if the
      given rule raises an exception.
    Raises:
      NoRuleError: `rule` is neither a rule nor a constructor of a rule.
      RuleError: The constructor raised an exception.
    Example:
      >>> made(lambda rate: 1 / 0, 0.1, {}, "mine.py:rule")
      Traceback (most recent call last):
      research.verification.rule_under_test.RuleError: mine.py:rule raised ...
    """
    sort = "an optax.GradientTransformation"
    if not is_made(rule) and not callable(rule):
        raise NoRuleError(
            f"{name} must be {sort} or a function that returns one; it is "
            f"{_kind(rule)}."
        )
    found: Any = rule
    if not is_made(rule):
        found = calling(
            f"{name} raised", "while it was built", lambda: rule(rate, **arguments)
        )
    if not is_made(found):
        raise NoRuleError(
            f"{name} is not an update rule: called with a learning rate, it returned "
            f"{_kind(found)}; expected {sort}."
        )
    return _checked(found, name)


def guarded(name: str, constructor: Any) -> Callable[..., optax.GradientTransformation]:
    """Return a constructor of rules that check their own updates.

    Each call of `update` checks that updates and state keep structure, shapes and
    dtypes. The error messages contain the name of the rule.

    Args:
      name: Name of the rule in messages.
      constructor: A function of hyper-parameters by name, or a rule that is already
        made. In the second case, hyper-parameters have no effect.
    Returns:
      The new constructor, a function of hyper-parameters by name. It raises NoRuleError
      if `constructor` is not a rule and does not return one. It raises RuleError if
      `constructor` raises an exception.
    Example:
      >>> guarded("mine", lambda rate: 1 / 0)(rate=0.1)
      Traceback (most recent call last):
      research.verification.rule_under_test.RuleError: mine raised ZeroDivisionError ...
    """

    def make_rule(**hyperparameters: Any) -> optax.GradientTransformation:
        if is_made(constructor):
            return made(constructor, 0.0, {}, name)
        return made(lambda _: constructor(**hyperparameters), 0.0, {}, name)

    return (
        make_rule
        if is_made(constructor)
        else functools.update_wrapper(make_rule, constructor)
    )


def _checked(
    rule: optax.GradientTransformation, name: str
) -> optax.GradientTransformationExtraArgs:
    inner = optax.with_extra_args_support(rule)

    def init(params: Params):
        return calling(f"{name} raised", "in init", lambda: inner.init(params))

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        answer = calling(
            f"{name} raised",
            "in update",
            lambda: inner.update(updates, state, params, **extra),
        )
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise NoRuleError(
                f"{name}: update must return (updates, state); it returned "
                f"{_kind(answer)}."
            )
        try:
            check_updates(answer[0], params, dtypes=True)
        except TypeError as problem:
            raise NoRuleError(f"{name}: {problem}") from None
        _check_state(state, answer[1], name)
        return answer

    return optax.GradientTransformationExtraArgs(init, update)


def _check_state(before: Any, after: Any, name: str) -> None:
    """Raise NoRuleError if a compiled loop could not use the state for another step."""
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise NoRuleError(
            f"{name}: update changes the structure of its state from "
            f"{jax.tree.structure(before)} to {jax.tree.structure(after)}; return a "
            "state like the one that init makes."
        )
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        of_before, of_after = jax.typeof(a), jax.typeof(b)
        same_dtype = of_before.dtype == of_after.dtype or getattr(
            of_before, "weak_type", False
        )
        if of_before.shape != of_after.shape or not same_dtype:
            raise NoRuleError(
                f"{name}: update changes its state at "
                f"{jax.tree_util.keystr(path) or 'the only leaf'} from "
                f"{of_before.str_short()} to {of_after.str_short()}; return a state "
                "like the one that init makes."
            )


def calling(raised: str, when: str, call: Callable[[], Any]) -> Any:
    """Return the result of `call()`, and convert an exception to a RuleError.

    The error names the rule and the kind of exception. It contains the file and line of
    user code that raised the exception (`place`), and the message of the exception. If
    user code reads values of traced arrays, advice replaces this message. A RuleError
    or a NoRuleError is not converted.

    Args:
      raised, when: Parts of the message before and after the kind of exception, such as
        "the rule raised" and "in update".
      call: Function without arguments.
    """
    try:
        return call()
    except (RuleError, NoRuleError):
        raise
    except Exception as problem:
        message = " ".join(str(problem).partition("\n\n")[0].split())
        if isinstance(problem, LOOKS_AT_VALUES):
            message = (
                "traced arrays have no known values: replace `if` by jnp.where or "
                "jax.lax.cond, and do not use float() or numpy on such arrays"
            )
        raise RuleError(
            f"{raised} {type(problem).__name__} {when}{place(problem)}: {message}"
        ) from problem


def place(problem: BaseException) -> str:
    """Return the line of user code that raised an error, as " (line 3 of mine.py)".

    Return "" if no line of the traceback is user code.
    """
    packages = (
        "site-packages",
        "dist-packages",
        sys.prefix,
        sys.base_prefix,
        str(OURS),
        "<",
    )
    frames = traceback.extract_tb(problem.__traceback__)
    own = [
        frame
        for frame in frames
        if not any(package in frame.filename for package in packages)
    ]
    return f" (line {own[-1].lineno} of {Path(own[-1].filename).name})" if own else ""


def _kind(value: Any) -> str:
    return f"a value of type {type(value).__name__}"


def is_a_guard(constructor: Any) -> bool:
    """Return whether `guarded` returned this constructor for a finished rule.

    A finished rule is a gradient transformation, not a function that makes one. For a
    finished rule, `guarded` returns a function that makes a checked copy of this rule.
    """
    return getattr(constructor, "__module__", "") == guarded.__module__


def source_digest(make_rule: Any) -> str | None:
    """Return the SHA-256 digest of a constructor's source code, in hexadecimal digits.

    `make_rule` is the constructor of an update rule. The digest covers only the source
    code of the constructor itself, not of the functions that the constructor calls. The
    result is None if the source code is unknown. It is also None if `make_rule` was
    returned by the function `guarded` for a gradient transformation, because then there
    is no constructor whose source could be read.
    """
    constructor = inspect.unwrap(make_rule)
    # The source of a rule that is already made is not available.
    if is_a_guard(constructor):
        return None
    try:
        text = inspect.getsource(constructor)
    except (TypeError, OSError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()
