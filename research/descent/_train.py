"""Train one model from its start or from a checkpoint, reporting progress."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.checks import (
    check_callable,
    check_count,
    check_flag,
    check_key,
    check_methods,
    check_tree,
    refuse_traced,
    shown,
)
from research.descent import _processes
from research.descent._host_loop import advance_until_done
from research.descent._mesh import Mesh, check_mesh, check_whole_alike
from research.descent._mesh_loop import compile_on_mesh
from research.descent._step import check_no_nan
from research.descent._train_loop import Compiled, compile_training
from research.descent._train_progress import (
    Progress,
    TrainResult,
    check_alike,
    collected,
    digest,
    evaluation_params,
    from_saved,
    to_saved,
)
from research.descent._train_records import check_records, compile_on_records
from research.samplers import check_sampler, num_examples
from research.sizes import check_most
from research.types import (
    Array,
    Batch,
    Checkpoint,
    Key,
    Params,
    Records,
    Sampler,
    no_checkpoints,
)

# Approximate time between two progress reports.
SECONDS_BETWEEN_LOOKS = 0.5
FIRST_LOOK = 4  # Steps before the first report, while the time per step is unknown.

Evaluate = Callable[[Params], dict[str, Any]]
OnProgress = Callable[[float, str], None]


def train(
    objective: Callable[[Params, Any], Array],
    rule: optax.GradientTransformation,
    dataset: Batch | Records | None,
    sampler: Sampler,
    *,
    num_epochs: int,
    params: Params,
    key: Key,
    evaluate: Evaluate | None = None,
    noisy: bool = False,
    on_progress: OnProgress | None = None,
    checkpoint: Checkpoint | None = None,
    devices: int = 1,
    mesh: Mesh | None = None,
) -> TrainResult:
    """Train one model, with progress reports, checkpoints and resumption.

    The result contains the trained params and, for every step, its `Info` with the
    loss. With the same sampler and key, the batches are the same as in
    `research.descent.run`. The loop over steps is compiled once. A progress report or
    an interruption splits this loop into shorter loops, but the splits do not change
    the bits of the result. The indices of the batches are computed and stored for one
    epoch at a time.

    There are two ways to use several devices:

    - With the argument `devices`, every device holds all params. Rules that store data
      for each example, such as SAGA, raise a ValueError.
    - A `mesh` can split the params over its devices, and can use the devices of several
      processes. It works with every rule.

    In both cases, each of D devices takes batch_size / D examples of each batch, and
    values and gradients are averaged over the devices. The order of summation differs,
    so the bits may differ from the result on one device. If `noisy` is True, each
    device folds its own index into the key of the batch, so that the devices draw
    different noise.

    With a mesh over several processes, every process calls `train` with the same
    arguments. Process 0 reads and writes the checkpoint and reports progress. Ctrl-C in
    one process stops all of them.

    Args:
      objective: Function (params, batch) -> number, a mean over the batch's examples.
      rule: Any gradient transformation.
      dataset: A Batch, Records or None. A Batch of n examples is copied to the device
        once for the whole training. Records, from `research.records.open_records`, are
        read from a disk, and only the examples of the next steps are in memory. The
        result has the same bits as with a Batch. None is for an objective that uses no
        data.
      sampler: Sampler that chooses the examples of each batch. An epoch's order is
        drawn from fold_in(key, epoch).
      num_epochs: Number of epochs.
      params: Initial parameters, a pytree of floating arrays.
      key: Key from which the keys of all epochs are derived. Use another key than the
        one that drew the params.
      evaluate: Function (params) -> dict from names to numbers. It is called before the
        first epoch and after each epoch. `train` does not compile `evaluate`. For
        speed, let `evaluate` call a compiled function (jax.jit), with params and data
        as its arguments. `research.objectives.in_slices` makes such a function from a
        function of params and a batch.
      noisy: Whether the objective draws noise. If True, each batch gets a different
        random key, in the field `key` of its `Batch`.
      on_progress: Function called with the fraction of the training that is done, from
        0 to 1, and a short text.
      checkpoint: Place where the training is saved, such as
        `runs.checkpoints_in(folder)(name)`. If it contains a saved training, this
        training is resumed. Ctrl-C saves the training and then stops. None means that
        the training is not saved.
      devices: Number of JAX devices that share each batch. On a CPU,
        `research.backend.configure(devices=...)` creates them.
      mesh: Devices of one or many processes that share each batch, from
        `research.descent.mesh`. None means that the argument `devices` says how many
        devices of this process are used. A training that was saved with a mesh can be
        resumed on any mesh with the same number of devices and the same settings. The
        number of processes may differ.
    Returns:
      The TrainResult. A training that diverges is not an error. Its first step whose
      loss or update is not finite is recorded as `first_bad_step`.
    Raises:
      ValueError: num_epochs or devices is not positive, JAX has too few devices, or
        batch_size is not a multiple of the number of devices. Or devices is above 1,
        and either the sampler takes the whole dataset as one batch, or the rule stores
        data for each example, as SAGA does. Or x and y of the dataset differ in length
        or are empty, or NaN in them makes the objective NaN. Or the sampler is made for
        another number of examples, or it draws an index outside the dataset. Or the
        dataset is Records, and an example has changed since it was written. Or the
        dataset is Records, and one of these holds: a mesh is given, the sampler takes
        the whole dataset as one batch, or the rule needs other examples than those of
        the batch, as SVRG and SAGA do. Or devices is above 1, and a mesh is given. Or
        the processes of the mesh differ in code, versions or arguments. Or evaluate
        returns other names than at its first call. Or the checkpoint belongs to another
        training. The check of the checkpoint compares the data, the initial params, the
        initial state of the rule, the key, the order of the examples, the number of
        devices and the settings of the mesh. The check also compares the program of a
        step. This program contains the objective with its penalty, and the rule with
        its schedules and constants, such as momentum, b1 or weight_decay. The program
        is not compared if the checkpoint is of another version of JAX or jaxlib, or of
        another kind of device. The code of Python functions that the compiled program
        calls (callbacks) is not compared.
      TypeError: The rule is not a gradient transformation, a leaf of params is not
        floating, the dataset is neither a Batch nor Records nor None, or the key is not
        a JAX key. Also if the objective does not return one real floating number, or
        evaluate does not return a dict from names to numbers.
      OSError: The checkpoint cannot be written.
      ConnectionError: Another process of the mesh has ended or cannot be reached.
      ImportError: The dataset is Records, and the package grain is not installed.
    Example:
      >>> import jax.numpy as jnp
      >>> from research import samplers, update_rules
      >>> objective = lambda x, batch: jnp.mean((x - batch.x) ** 2)
      >>> data = Batch(jnp.arange(4.0), jnp.zeros(4))
      >>> rule, sampler = update_rules.gradient_descent(0.25), samplers.minibatch(4, 2)
      >>> evaluate = lambda x: {"f": objective(x, data)}
      >>> start = {"params": jnp.array(9.0), "key": jax.random.key(0)}
      >>> trained = train(
      ...     objective, rule, data, sampler, num_epochs=50, evaluate=evaluate, **start
      ... )
      >>> f = trained.evaluations["f"]
      >>> trained.steps.loss.shape, f.shape, bool(f[-1] < 2)
      ((50, 2), (51,), True)
    """
    refuse_traced("train", params=params, key=key)
    if isinstance(dataset, Records):
        check_records(dataset)
        n = dataset.num_examples
    else:
        n = num_examples(dataset)
    check_sampler(sampler, n)
    _check(num_epochs, devices, sampler, key)
    if mesh is not None:
        _check_mesh(mesh, devices, sampler, dataset, n)
    check_callable("objective", objective, "params", "batch")
    check_tree("params", params)
    if isinstance(dataset, Batch):
        check_no_nan("dataset", dataset, objective, lambda: params)
    check_flag("noisy", noisy)
    if evaluate is not None:
        check_callable("evaluate", evaluate, "params")
    if on_progress is not None:
        check_callable("on_progress", on_progress, "share", "words")
    if checkpoint is not None:
        check_methods(
            "checkpoint",
            checkpoint,
            "load",
            "save",
            "due",
            hint="Make one by runs.checkpoints_in(folder)(name).",
        )
    keeps = checkpoint is not None
    checkpoint = checkpoint or no_checkpoints("training")
    together = mesh is not None and jax.process_count() > 1
    with (
        _processes.lost_processes_explained(),
        _processes.interrupts_noted(together) as noted,
    ):
        if mesh is not None:
            _processes.check_same_everywhere(
                _processes.settings()
                | {
                    "num_epochs": str(num_epochs),
                    "evaluate": "None" if evaluate is None else "a function",
                    "noisy": str(noisy),
                }
            )
        began = time.perf_counter()
        compiled = _compile(
            objective, rule, dataset, sampler, params, key, noisy, devices, mesh
        )
        compile_seconds = time.perf_counter() - began
        if mesh is not None:
            checkpoint = _processes.shared_checkpoint(checkpoint, noted)
        at, saved = compiled.start, checkpoint.load()
        if keeps and isinstance(dataset, Batch) and mesh is None:
            # A mesh and Records compare the data themselves.
            at = at._replace(training=digest(at.training, dataset))
        if keeps:
            at = at._replace(program=compiled.program())
        # The traced program and its constants would stay in memory.
        compiled = compiled._replace(program=dict)
        if saved is not None:
            at = from_saved(at, saved, num_epochs, evaluate is not None)
        elif evaluate is not None:
            at = at._replace(evaluations=(_evaluated(evaluate, at, compiled),))
        at = advance_until_done(
            at,
            is_done=lambda at: at.epoch == num_epochs,
            advance=_advance(compiled, key, sampler.num_batches, evaluate, mesh),
            show=ProgressReporter(on_progress, num_epochs, sampler.num_batches).show,
            to_saved=lambda at: to_saved(at._replace(state=compiled.whole(at.state))),
            checkpoint=checkpoint,
            agreed=lambda own: (
                own if mesh is None else bool(_processes.number_of_leader(own))
            ),
        )
        params = compiled.whole(evaluation_params(at.state))
    return collected(at, params, compile_seconds)


def _compile(
    objective: Callable[[Params, Any], Array],
    rule: optax.GradientTransformation,
    dataset: Batch | Records | None,
    sampler: Sampler,
    params: Params,
    key: Key,
    noisy: bool,
    devices: int,
    mesh: Mesh | None,
) -> Compiled:
    problem = objective, rule, cast(Any, dataset), sampler, params, key
    if mesh is not None:
        return compile_on_mesh(*problem, noisy=noisy, mesh=mesh)
    on_disk = isinstance(dataset, Records)
    compile_any = compile_on_records if on_disk else compile_training
    return compile_any(*problem, noisy=noisy, devices=devices)


def _check_mesh(
    mesh: Mesh,
    devices: int,
    sampler: Sampler,
    dataset: Batch | Records | None,
    n: int | None,
) -> None:
    check_mesh(mesh)
    if isinstance(dataset, Records):
        raise ValueError(
            f"a mesh needs the dataset in memory, but {dataset.name} is on a disk. "
            "Leave out mesh; devices=n shares each batch in one process."
        )
    if devices != 1:
        raise ValueError(
            f"devices and mesh both name the devices; got devices={devices} beside a "
            f"mesh. Leave out devices, and use research.descent.mesh({devices})."
        )
    if n is not None and sampler.batch_size % mesh.num_devices:
        raise ValueError(
            "each batch is split over the devices of the mesh, so batch_size must be a "
            f"multiple of their number; got batch_size={sampler.batch_size}, and the "
            f"mesh has {mesh.num_devices} devices. Use another batch size, or "
            "research.descent.mesh(num_devices) with a divisor of the batch size."
        )


def _check(num_epochs: int, devices: int, sampler: Sampler, key: Key) -> None:
    check_key("key", key)
    if not isinstance(key, jax.Array) or not jnp.issubdtype(
        key.dtype, jax.dtypes.prng_key
    ):
        raise TypeError(
            f"key must be a JAX key, such as jax.random.key(0); got {key!r}."
        )
    for name, value in (("num_epochs", num_epochs), ("devices", devices)):
        check_count(name, value)
    check_most(num_epochs=num_epochs)
    count = jax.local_device_count()
    if devices > count:
        raise ValueError(
            f"devices={devices}, but JAX has only {count}. On a CPU call "
            f"research.backend.configure(devices={devices}, pool={devices}) before JAX "
            "computes anything."
        )
    if sampler.batch_size % devices:
        raise ValueError(
            "each batch is split over devices, so batch_size must be a multiple of "
            f"devices; got batch_size={sampler.batch_size}, devices={devices}."
        )


def _advance(
    compiled: Compiled,
    key: Key,
    num_batches: int,
    evaluate: Evaluate | None,
    mesh: Mesh | None,
) -> Callable[[Progress], Progress]:
    """Return a function that advances a training by some steps or to the next epoch."""
    batches_of = functools.lru_cache(1)(
        lambda epoch: compiled.epoch_batches(key, epoch)
    )
    steps = FIRST_LOOK

    def advance(at: Progress) -> Progress:
        nonlocal steps
        if at.step == num_batches:
            return _next_epoch(at, evaluate, compiled, mesh)
        if mesh is not None:
            steps = _processes.number_of_leader(steps)
        stop = min(at.step + steps, num_batches)
        after = _after_steps(at, compiled, batches_of(at.epoch), stop)
        pace = (after.seconds - at.seconds) / (stop - at.step)
        steps = max(1, round(SECONDS_BETWEEN_LOOKS / max(pace, 1e-9)))
        return after

    return advance


def _after_steps(at: Progress, compiled: Compiled, batches: Any, stop: int) -> Progress:
    began = time.perf_counter()
    advanced = compiled.advance(at.state, at.info, batches, at.step, stop)
    try:
        state, info = jax.block_until_ready(advanced)
    except KeyboardInterrupt:
        # A computation still running at exit crashes the process.
        jax.block_until_ready(advanced)
        raise
    seconds = at.seconds + time.perf_counter() - began
    return at._replace(step=stop, state=state, info=info, seconds=seconds)


def _next_epoch(
    at: Progress, evaluate: Evaluate | None, compiled: Compiled, mesh: Mesh | None
) -> Progress:
    if mesh is None:
        check_alike(at.state)
    else:
        check_whole_alike(at.state)
    evaluated = () if evaluate is None else (_evaluated(evaluate, at, compiled),)
    earlier = (*at.earlier, jax.device_get(at.info))
    return at._replace(
        epoch=at.epoch + 1,
        step=0,
        earlier=earlier,
        evaluations=(*at.evaluations, *evaluated),
    )


def _evaluated(
    evaluate: Evaluate, at: Progress, compiled: Compiled
) -> dict[str, float]:
    values = evaluate(compiled.whole(evaluation_params(at.state)))
    if not hasattr(values, "items"):
        raise TypeError(
            "evaluate must return a dict from names to numbers; it returns "
            f"{shown(values)}. Return for example {{'loss': value}}."
        )
    before = at.evaluations[0] if at.evaluations else values
    if set(values) != set(before):
        raise ValueError(
            "evaluate must return the same names each time; it returns "
            f"{shown(sorted(values))} after epoch {len(at.evaluations)}, and "
            f"{shown(sorted(before))} at the start. Return NaN for a name that has no "
            "value."
        )
    return {name: _number_of(name, value) for name, value in values.items()}


def _number_of(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(
            "evaluate must return a dict from names to numbers; the value of "
            f"{name!r} is {shown(value)}. Return one number for each name."
        ) from None


class ProgressReporter(NamedTuple):
    """Reporter that passes the progress of a training to a function.

    Attributes:
      on_progress: Function called with the fraction of the training that is done, from
        0 to 1, and a short text. None means that nothing is reported.
      num_epochs, num_batches: Number of epochs, and of batches in an epoch.
    """

    on_progress: OnProgress | None
    num_epochs: int
    num_batches: int

    def show(self, at: Progress) -> None:
        """Report the fraction done, the mean loss and the learning rate.

        The mean is over the latest steps of the epoch: at most a tenth of the steps of
        an epoch, or one step if an epoch has fewer than ten. A learning rate of NaN is
        left out. Nothing is reported before the first step of an epoch, and only
        process 0 reports.
        """
        if self.on_progress is None or not at.step or not _processes.is_leader():
            return  # No step of this epoch is done, or process 0 reports.
        first = max(0, at.step - max(1, self.num_batches // 10))
        loss, rate = (
            np.asarray(values)[first : at.step]
            for values in (at.info.loss, at.info.learning_rate)
        )
        words = f"epoch {at.epoch + 1} of {self.num_epochs}, loss {loss.mean():.3g}"
        words += "" if math.isnan(rate[-1]) else f", rate {rate[-1]:.2g}"
        share = (at.epoch + at.step / self.num_batches) / self.num_epochs
        self.on_progress(share, words)
