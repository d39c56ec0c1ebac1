"""Compile the one program that all runs of a sweep share."""

import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.checks import (
    check_callable,
    check_count,
    check_flag,
    check_instance,
    check_sequence,
    shown,
    takes_others,
)
from research.descent import _full_batch, _run, _step
from research.descent._shared_programs import compile_once
from research.objectives import check_data
from research.samplers import check_form, check_sampler, num_examples
from research.sizes import check_most, check_room
from research.types import Array, Batch, Key, Params, Sampler, Workload

# Children of a run's root key. The initial point and the order of examples use
# different keys.
INIT, EPOCHS = range(2)

# The width is fixed: a vmapped product sums in another order at another width, which
# changes the bits of a run.
WIDTH = 8
# With the full batch, the products are those of a large matrix and few columns, and
# take less time for each column if there are more.
FULL_BATCH_WIDTH = 16
# Orders of examples that need more memory than this are drawn one epoch at a time.
MOST_BYTES_OF_ORDERS = 2**26

MakeRule = Callable[..., optax.GradientTransformation]


class SweepProgram(NamedTuple):
    """The compiled program that all runs of a sweep share.

    A run is one training. The runs differ in their seeds and hyper-parameters, which
    are arguments of the program. The program consists of three functions for each
    device: `begin`, `orders` and `advance`. The fields with these names and the field
    `data` are tuples with one entry for each device, in the order of `devices`. The
    arguments and results of the functions are:

    - runs: dict with the key "seed" and the names in `hyperparameters` as keys. Each
      value is an array of length `width`, with one entry for each run;
    - data: dict from the name of a part of the workload to its data;
    - states: the params and the state of the rule of each run;
    - epochs: array with the numbers of `chunk` successive epochs, counted from 0;
    - orders: indices of the examples in the batches of these epochs, as the sampler
      draws them, or None. The function `orders` returns this value;
    - info: the measurements of these epochs.

    Attributes:
      begin: For each device: function (runs, data) -> (states, values of the objective
        at the initial parameters).
      orders: For each device: function (runs, epochs) -> orders. The result is None if
        `advance` draws the indices itself, or if the sampler draws none.
      advance: For each device: function (states, runs, epochs, orders, data) ->
        (states, info), which runs the epochs.
      data: For each device: the dict `data`. It always has the key "train".
      evaluate_on: Names of the parts on which the objective is evaluated.
      hyperparameters: Names of the traced hyper-parameters that each run provides.
      sampler, num_epochs, chunk: As in `compile_sweep`, but chunk is never None.
      gradient_norms: As in `compile_sweep`.
      width: Number of runs that are computed together, never None.
      devices: The devices. They work in parallel, each on one batch of runs at a time.
      compile_seconds: Time that building the program took. Parts that this process has
        compiled before are not compiled again.
    """

    begin: tuple[Callable, ...]
    orders: tuple[Callable, ...]
    advance: tuple[Callable, ...]
    data: tuple[dict[str, Batch | None], ...]
    evaluate_on: tuple[str, ...]
    hyperparameters: tuple[str, ...]
    sampler: Sampler
    num_epochs: int
    chunk: int
    gradient_norms: bool
    width: int
    devices: tuple[Any, ...]
    compile_seconds: float


def compile_sweep(
    workload: Workload,
    make_rule: MakeRule,
    sampler: Sampler,
    num_epochs: int,
    *,
    hyperparameters: Sequence[str] = ("learning_rate",),
    chunk: int | None = None,
    width: int | None = None,
    devices: Sequence[Any] | None = None,
    evaluate_on: Sequence[str] = ("train",),
    gradient_norms: bool = True,
) -> SweepProgram:
    """Compile one program for all runs that differ only in seed and hyper-parameters.

    The seeds and the hyper-parameters are traced values of the program, so a sweep over
    them compiles nothing more. Each device gets the same single-device program. The
    bits of a run therefore do not depend on the number of devices. The parts that draw
    the initial points and the order of the examples are compiled separately from the
    steps. If another call has another rule, but the same workload and sampler, these
    compiled parts are used again.

    Args:
      workload: Workload to train.
      make_rule: Function that makes the rule. It is called with the run's
        hyper-parameters by name, as traced scalars.
      sampler: Sampler made for workload.train.
      num_epochs: Number of epochs of each run.
      hyperparameters: Names of the hyper-parameters that `make_rule` takes.
      chunk: Number of epochs between two saves and progress reports. It must divide
        num_epochs and be at least 2. The exception is num_epochs=1, which needs
        chunk=1. None means num_epochs / 10 if this is an integer of at least 2, else
        num_epochs.
      width: Number of runs that are computed together, as one batch of runs. None means
        16 if each epoch is one step on the whole dataset, else 8.
      devices: Devices to use. None means all of `jax.devices()`.
      evaluate_on: Parts of the workload ("train", "validation", "test") on which the
        objective is evaluated.
      gradient_norms: Whether to record the Euclidean norm of the gradient, in the field
        `info.gradient_norm` of the result. If False, this field is None, and a step of
        a small network takes less time. XLA then compiles a different program, so the
        other fields of the result may differ by rounding.
    Returns:
      The program.
    Raises:
      ValueError: num_epochs or width is not positive, chunk is too small or does not
        divide num_epochs, devices is empty, hyperparameters contains "seed", the
        workload lacks a part named in evaluate_on, or the sampler is made for another
        number of examples than workload.train has. A workload without data needs a
        sampler for one example.
      TypeError: make_rule is not a function, make_rule does not take the arguments in
        hyperparameters, or another argument has the wrong type, for example
        gradient_norms is neither True nor False.
    Example:
      >>> from research import descent, samplers, update_rules, workloads
      >>> quadratic = workloads.make_workload("quadratic")
      >>> rule, sampler = update_rules.gradient_descent, samplers.full_batch(1)
      >>> program = compile_sweep(quadratic, rule, sampler, 20)
      >>> runs = {"seed": [0, 1], "learning_rate": [0.1, 0.1]}
      >>> descent.sweep(program, runs).values.shape
      (2, 21)
    """
    check_workload("workload", workload)
    check_form(sampler)
    check_sequence("hyperparameters", hyperparameters, "names", str)
    if "seed" in hyperparameters:
        raise ValueError(
            "hyperparameters must not contain 'seed', because every run has a seed and "
            f"make_rule gets none; got hyperparameters={shown(tuple(hyperparameters))}."
        )
    check_make_rule(make_rule, hyperparameters)
    check_flag("gradient_norms", gradient_norms)
    is_full_batch = _full_batch.is_full_batch(sampler)
    if width is None:
        width = FULL_BATCH_WIDTH if is_full_batch else WIDTH
    for name, value in (("num_epochs", num_epochs), ("width", width)):
        check_count(name, value)
    check_most(num_epochs=num_epochs, width=width)
    check_room(f"num_epochs={num_epochs} and width={width}", num_epochs, width)
    chunk = _check_chunk(chunk, num_epochs)
    n = num_examples(workload.train)
    if n is None:
        _check_without_data(sampler)
    # Without data, one pass is one evaluation of the objective.
    check_sampler(sampler, 1 if n is None else n)
    devices = _check_devices(devices)
    parts = _check_parts(workload, evaluate_on)
    # Without a record of the training objective, there is nothing to save. A step gets
    # its data without the key that a dataset may have.
    is_keyed = workload.train is not None and workload.train.key is not None
    in_one = "train" in parts and is_full_batch and not is_keyed
    params = jax.eval_shape(lambda: workload.init(jax.random.key(0)))
    for part in {"train", *parts}:
        check_data(workload.objective, params, getattr(workload, part))
    started = time.perf_counter()
    functions = _functions(workload, make_rule, sampler, parts, in_one, gradient_norms)
    names = tuple(hyperparameters)
    compiled = [
        _compile_on(device, workload, functions, parts, names, chunk, width)
        for device in devices
    ]
    begin, orders, advance, data = zip(*compiled, strict=True)
    return SweepProgram(
        begin=begin,
        orders=orders,
        advance=advance,
        data=data,
        evaluate_on=parts,
        hyperparameters=names,
        sampler=sampler,
        num_epochs=num_epochs,
        chunk=chunk,
        gradient_norms=gradient_norms,
        width=width,
        devices=devices,
        compile_seconds=time.perf_counter() - started,
    )


class _OneRun(NamedTuple):
    """The parts of a run as pure functions.

    The functions `initial` and `orders` do not depend on the rule.

    Attributes:
      initial: (seed, data) -> (params, values at these params).
      begin: (params, run, data) -> state.
      orders: (seed, epochs) -> indices of the epochs' batches, or None.
      advance: (state, run, epochs, orders, data) -> (state, info).
    """

    initial: Callable[..., Any]
    begin: Callable[..., Any]
    orders: Callable[..., Any]
    advance: Callable[..., Any]


def _functions(
    workload: Workload,
    make_rule: MakeRule,
    sampler: Sampler,
    parts: Sequence[str],
    in_one: bool,
    gradient_norms: bool,
) -> _OneRun:
    """Return the parts of a run.

    If `in_one` is True, one evaluation gives both the objective that is recorded after
    a step and the gradient of the next step. If `gradient_norms` is False, the summary
    of an epoch has no gradient_norm, and XLA removes its computation.
    """

    def evaluate(params: Params, data: Mapping[str, Any], on_train: Any = None):
        return tuple(
            workload.objective(params, data[part])
            if part != "train" or on_train is None
            else on_train
            for part in parts
        )

    def initial(seed: Array, data: Mapping[str, Any]):
        params = workload.init(_key(seed, INIT))
        return params, _together(evaluate(params, data))

    def begin(params: Params, run: Mapping[str, Array], data: Mapping[str, Any]):
        of_step = workload.objective, make_rule(**_hyper(run)), data["train"]
        state = _step.build(*of_step).init(params)
        if in_one:
            return _full_batch.begin(_step.halves_of_step(*of_step), state)
        return state

    def orders(seed: Array, epochs: Array):
        return _run.draw_orders(sampler, _key(seed, EPOCHS), epochs)

    def advance(
        state: Any,
        run: Mapping[str, Array],
        epochs: Array,
        orders: Array | None,
        data: Mapping[str, Any],
    ):
        of_step = workload.objective, make_rule(**_hyper(run)), data["train"]
        if in_one:
            state, info = _full_batch.scan_steps(
                _step.halves_of_step(*of_step),
                state,
                epochs,
                lambda params, value: evaluate(params, data, value),
            )
        else:
            state, info = _run.scan_epochs(
                _step.build(*of_step).step,
                state,
                sampler,
                _key(run["seed"], EPOCHS),
                epochs,
                orders,
                lambda params: evaluate(params, data),
            )
        info = info._replace(evaluations=_together(info.evaluations))
        return state, info if gradient_norms else info._replace(gradient_norm=None)

    return _OneRun(initial, begin, orders, advance)


def _compile_on(
    device: Any,
    workload: Workload,
    functions: _OneRun,
    parts: Sequence[str],
    names: Sequence[str],
    chunk: int,
    width: int,
) -> tuple[Callable, Callable, Callable, dict[str, Batch | None]]:
    """Compile the functions of a run for one device, and place the data there."""
    place = jax.sharding.SingleDeviceSharding(device)
    data = {part: getattr(workload, part) for part in ("train", *parts)}
    data = jax.device_put(data, place)
    one = {name: np.ones(1) for name in names} | {"seed": np.zeros(1, int)}
    runs = jax.device_put(padded(one, width), place)
    epochs = jax.device_put(np.arange(chunk, dtype=np.int32), place)

    initial = compile_once(
        _over_runs(functions.initial, (0, None), width), runs["seed"], data
    )
    params, _ = initial(runs["seed"], data)
    begun = compile_once(
        _over_runs(functions.begin, (0, 0, None), width), params, runs, data
    )

    def begin(runs: Mapping[str, Any], data: Mapping[str, Any]):
        params, values = initial(runs["seed"], data)
        return begun(params, runs, data), values

    drawn = compile_orders(
        _over_runs(functions.orders, (0, None), width), runs["seed"], epochs
    )
    orders = lambda runs, epochs: drawn(runs["seed"], epochs)
    states, order = begun(params, runs, data), orders(runs, epochs)
    advance = compile_once(
        _over_runs(functions.advance, (0, 0, None, 0, None), width),
        *(states, runs, epochs, order, data),
    )
    return begin, orders, advance, data


def compile_orders(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """Compile a function that draws the order of the examples for several epochs.

    The order of an epoch is an array of indices of examples. The result is the compiled
    function. If the function draws no indices, or the indices take more than 64 MiB in
    total, nothing is compiled. The result is then a function that returns None.
    """
    drawn = jax.tree.leaves(jax.eval_shape(function, *arguments))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in drawn)
    if not 0 < size <= MOST_BYTES_OF_ORDERS:
        return lambda *arguments: None
    return compile_once(function, *arguments)


def _over_runs(
    function: Callable[..., Any], axes: tuple[int | None, ...], width: int
) -> Callable[..., Any]:
    """Return a function of one run as a function of `width` runs.

    With width=1, vmap is not used, because it computes both branches of every
    `lax.cond` of a rule: a rule that refreshes something every ten steps would do so in
    every step.
    """
    if width > 1:
        return jax.vmap(function, in_axes=axes)

    def of_one_run(*arguments: Any) -> Any:
        single = [
            argument if axis is None else jax.tree.map(lambda a: a[0], argument)
            for argument, axis in zip(arguments, axes, strict=True)
        ]
        return jax.tree.map(lambda a: jnp.asarray(a)[None], function(*single))

    return of_one_run


def check_workload(name: str, workload: Any) -> None:
    """Raise TypeError unless the value is a Workload with fields of the right types.

    Raises ValueError if NaN in the data makes the objective NaN. `name` is the name of
    the value in the message.
    """
    check_instance(
        name, workload, Workload, "Make one by research.workloads.make_workload(name)."
    )
    check_callable(f"{name}.init", workload.init, "key")
    check_callable(f"{name}.objective", workload.objective, "params", "batch")
    for part in ("train", "validation", "test"):
        _step.check_dataset(f"{name}.{part}", getattr(workload, part))
        _step.check_no_nan(
            f"{name}.{part}",
            getattr(workload, part),
            workload.objective,
            lambda: workload.init(jax.random.key(0)),
        )


def check_make_rule(make_rule: Any, hyperparameters: Iterable[str]) -> None:
    """Raise TypeError unless make_rule can be called with the hyper-parameters by name.

    make_rule is a constructor such as `update_rules.adam`. If make_rule is a rule, such
    as `update_rules.adam(0.1)`, the message of the TypeError says so.
    """
    if not callable(make_rule) and hasattr(make_rule, "update"):
        raise TypeError(
            "make_rule must be a function that makes a rule; got a rule that is "
            "already made. Pass its constructor, such as update_rules.adam, not "
            "update_rules.adam(0.1)."
        )
    check_callable("make_rule", make_rule)
    try:
        signature = inspect.signature(make_rule)
    except (TypeError, ValueError):  # Some functions written in C have no signature.
        return
    names = tuple(hyperparameters)
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError as error:
        if takes_others(make_rule, **dict.fromkeys(names)):
            return
        raise TypeError(
            "hyperparameters must name the arguments of make_rule; got "
            f"hyperparameters={shown(names)}, but make_rule takes "
            f"{', '.join(signature.parameters) or 'no arguments'} ({error})."
        ) from None


def _check_without_data(sampler: Sampler) -> None:
    is_whole = jax.eval_shape(lambda: sampler.indices(jax.random.key(0))) is None
    stated = sampler.batch_size if is_whole else sampler.num_examples
    if stated not in (None, 1):
        raise ValueError(
            f"the sampler is made for {stated} examples, but workload.train is None. "
            "Use samplers.full_batch(1) for a workload without data."
        )


def padded(runs: Mapping[str, np.ndarray], width: int) -> dict[str, np.ndarray]:
    """Pad each array of the dict `runs` to this width with copies of its last entry."""
    return {
        name: np.concatenate([v, np.repeat(v[-1:], width - len(v))])
        for name, v in runs.items()
    }


def _together(values: Sequence[Any]) -> Any:
    """Return the only value, or stack several values along a last axis."""
    return values[0] if len(values) == 1 else jnp.stack(values, -1)


def _check_chunk(chunk: int | None, num_epochs: int) -> int:
    if chunk is None:
        tenths = num_epochs % 10 == 0 and num_epochs >= 20
        chunk = num_epochs // 10 if tenths else num_epochs
    check_count("chunk", chunk)
    if chunk < min(2, num_epochs) or num_epochs % chunk:
        raise ValueError(
            f"chunk must divide num_epochs and be at least 2; got chunk={chunk}, "
            f"num_epochs={num_epochs}. (XLA unrolls a loop of one epoch, which changes "
            "the bits.)"
        )
    return int(chunk)


def _check_devices(devices: Sequence[Any] | None) -> tuple[Any, ...]:
    if devices is None:
        return tuple(jax.devices())
    check_sequence("devices", devices, "devices of jax.devices()", jax.Device)
    if not devices:
        raise ValueError(
            "devices must name at least one device; got none. Pass None for all "
            "devices."
        )
    return tuple(devices)


def _check_parts(workload: Workload, parts: Sequence[str]) -> tuple[str, ...]:
    known = ("train", "validation", "test")
    check_sequence("evaluate_on", parts, "parts of a workload", str)
    if not len(parts) or not set(parts) <= set(known):
        raise ValueError(
            f"evaluate_on must name parts of a workload, some of {known}; got "
            f"{parts!r}."
        )
    for part in parts:
        if part != "train" and getattr(workload, part) is None:
            raise ValueError(
                f"workload {workload.name!r} has no {part} part to evaluate on. Remove "
                f"{part!r} from evaluate_on."
            )
    return tuple(dict.fromkeys(parts))


def _hyper(run: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in run.items() if name != "seed"}


def _key(seed: Array, child: int) -> Key:
    return jax.random.fold_in(jax.random.key(seed), child)
