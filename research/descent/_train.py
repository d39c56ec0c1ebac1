"""One training from its start, or from a checkpoint, to its end, watched and saved."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.checks import (
    check_callable,
    check_count,
    check_flag,
    check_methods,
    check_tree,
)
from research.descent._host_loop import advance_until_done
from research.descent._step import BatchIndices
from research.descent._train_loop import Compiled, compile_training
from research.descent._train_progress import (
    Progress,
    TrainResult,
    check_alike,
    collected,
    evaluation_params,
    from_saved,
    to_saved,
)
from research.samplers import check_sampler, num_examples
from research.sizes import check_most
from research.types import (
    Array,
    Batch,
    Checkpoint,
    Key,
    Params,
    Sampler,
    no_checkpoints,
)

# How long the device works before progress is shown, about.
SECONDS_BETWEEN_LOOKS = 0.5
FIRST_LOOK = 4  # Steps, until the pace is known.

Evaluate = Callable[[Params], dict[str, Any]]
OnProgress = Callable[[float, str], None]


def train(
    objective: Callable[[Params, Any], Array],
    rule: optax.GradientTransformation,
    dataset: Batch | None,
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
) -> TrainResult:
    """Train one network: `run` on the same batches, watched, saved and gone on with.

    The loop over steps is compiled once and told from which step to which it runs, so
    neither how often it is looked at nor a kill changes a bit. It keeps every step's
    info, and no more of the data than one epoch's order.

    With several devices each batch is split over them: each takes batch_size / devices of
    its examples, and values and gradients are averaged. That sums in another order, so the
    bits differ from those on one device; a key of noise is folded with the device's
    number.

    Args:
      objective: (params, batch) -> (), a mean over the batch's examples.
      rule: Any gradient transformation.
      dataset: Of n examples, on the device once for the whole training.
      sampler: Says which examples make up each batch; an epoch's order is drawn from
        fold_in(key, epoch).
      num_epochs: How many.
      params: Where to start. The rule's state follows their dtype.
      key: Of all epochs; another than the one the params were drawn with.
      evaluate: params -> numbers by name, before the first epoch and after each. It is
        called as it is: jit it, with its data as an argument
        (`research.objectives.in_slices` does).
      noisy: Whether the objective draws noise: each step's batch then has a key of its own.
      on_progress: Called with the share done, in 0..1, and a few words.
      checkpoint: Where the training is saved; None: it is not. Ctrl-C saves it first.
      devices: Of JAX's devices, how many share each batch;
        `research.backend.configure(devices=...)` makes them on a CPU.
    Returns:
      TrainResult. A training that diverges is one like any other, and names its first
      bad step.
    Raises:
      ValueError: num_epochs or devices is not positive; there are not so many devices, or
        they do not divide the batch; the rule uses the batch's indices itself, of which
        each device has a share; x and y are not equally many or none; the sampler is made
        for another number of examples; the checkpoint is another training's, as far as
        start (with a constant rate), key, order, shapes of the data and devices tell: a
        penalty does not show.
      TypeError: The rule is none, a leaf of params is not floating, the dataset is no
        Batch, or the key no key.
      OSError: The checkpoint cannot be written.
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
    check_sampler(sampler, num_examples(dataset))
    _check(num_epochs, devices, sampler, key)
    check_callable("objective", objective, "params", "batch")
    check_tree("params", params)
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
    checkpoint = checkpoint or no_checkpoints("training")
    began = time.perf_counter()
    compiled = compile_training(
        objective,
        rule,
        dataset,
        sampler,
        params,
        key,
        noisy=noisy,
        devices=devices,
    )
    compile_seconds = time.perf_counter() - began
    at, saved = compiled.start, checkpoint.load()
    if saved is not None:
        at = from_saved(at, saved, num_epochs, evaluate is not None)
    elif evaluate is not None:
        at = at._replace(evaluations=(_evaluated(evaluate, at),))
    at = advance_until_done(
        at,
        is_done=lambda at: at.epoch == num_epochs,
        advance=_advance(compiled, key, sampler.num_batches, evaluate),
        show=ProgressReporter(on_progress, num_epochs, sampler.num_batches).show,
        to_saved=to_saved,
        checkpoint=checkpoint,
    )
    return collected(at, compile_seconds)


def _check(num_epochs: int, devices: int, sampler: Sampler, key: Key) -> None:
    if not isinstance(key, jax.Array) or not jnp.issubdtype(
        key.dtype, jax.dtypes.prng_key
    ):
        raise TypeError(
            f"key must be a JAX key, such as jax.random.key(0); got {key!r}."
        )
    for name, value in (("num_epochs", num_epochs), ("devices", devices)):
        check_count(name, value)
    check_most(num_epochs=num_epochs)
    if devices > len(jax.devices()):
        raise ValueError(
            f"devices={devices}, but JAX has {len(jax.devices())}. On a CPU call "
            f"research.backend.configure(devices={devices}, pool={devices}) before JAX "
            "computes anything."
        )
    if sampler.batch_size % devices:
        raise ValueError(
            "each batch is split over devices, so they must divide batch_size; got "
            f"batch_size={sampler.batch_size}, devices={devices}."
        )


def _advance(
    compiled: Compiled, key: Key, num_batches: int, evaluate: Evaluate | None
) -> Callable[[Progress], Progress]:
    """A progress -> that after some steps, or that at the start of the next epoch."""
    batches_of = functools.lru_cache(1)(
        lambda epoch: compiled.epoch_batches(key, epoch)
    )
    steps = FIRST_LOOK

    def advance(at: Progress) -> Progress:
        nonlocal steps
        if at.step == num_batches:
            return _next_epoch(at, evaluate)
        stop = min(at.step + steps, num_batches)
        after = _after_steps(at, compiled, batches_of(at.epoch), stop)
        pace = (after.seconds - at.seconds) / (stop - at.step)
        steps = max(1, round(SECONDS_BETWEEN_LOOKS / max(pace, 1e-9)))
        return after

    return advance


def _after_steps(
    at: Progress, compiled: Compiled, batches: BatchIndices, stop: int
) -> Progress:
    began = time.perf_counter()
    advanced = compiled.advance(at.state, at.info, batches, at.step, stop)
    try:
        state, info = jax.block_until_ready(advanced)
    except KeyboardInterrupt:
        # What a process leaves running when it ends crashes it.
        jax.block_until_ready(advanced)
        raise
    seconds = at.seconds + time.perf_counter() - began
    return at._replace(step=stop, state=state, info=info, seconds=seconds)


def _next_epoch(at: Progress, evaluate: Evaluate | None) -> Progress:
    check_alike(at.state)
    evaluated = () if evaluate is None else (_evaluated(evaluate, at),)
    earlier = (*at.earlier, jax.device_get(at.info))
    return at._replace(
        epoch=at.epoch + 1,
        step=0,
        earlier=earlier,
        evaluations=(*at.evaluations, *evaluated),
    )


def _evaluated(evaluate: Evaluate, at: Progress) -> dict[str, float]:
    values = evaluate(evaluation_params(at.state))
    return {name: float(value) for name, value in values.items()}


class ProgressReporter(NamedTuple):
    """What tells whoever looks on how far a training is.

    Attributes:
      on_progress: Called with the share done and a few words; None: nobody looks on.
      num_epochs, num_batches: How long the training is, and an epoch of it.
    """

    on_progress: OnProgress | None
    num_epochs: int
    num_batches: int

    def show(self, at: Progress) -> None:
        """Tell the share, and the mean loss of the last tenth of an epoch."""
        if self.on_progress is None or not at.step:
            return  # No step of this epoch is done.
        first = max(0, at.step - max(1, self.num_batches // 10))
        loss, rate = (
            np.asarray(values)[first : at.step]
            for values in (at.info.loss, at.info.learning_rate)
        )
        words = f"epoch {at.epoch + 1} of {self.num_epochs}, loss {loss.mean():.3g}"
        words += "" if math.isnan(rate[-1]) else f", rate {rate[-1]:.2g}"
        share = (at.epoch + at.step / self.num_batches) / self.num_epochs
        self.on_progress(share, words)
