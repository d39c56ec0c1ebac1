"""The only place that sets flags: device count, thread pool, float64, matmul precision,
loops as one kernel."""

import os
import re

import jax

# XLA's CPU backend compiles a loop whose buffers are below a threshold into one kernel,
# instead of calling a kernel for each operation of each step. At 256 kB, on two x86-64
# cores with jax 0.10.2, a step of stochastic descent takes a third of the time or less,
# one of mini-batch 32 up to a half, a full batch the same, and compiling half. jax 0.12
# is as fast without it, 0.7.2 gains as much. It changes bits, as every flag does.
SMALL_LOOP = (
    "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=262144"
)


MOST = 65_536  # Of devices, and of threads.


def configure(devices: int = 1, pool: int = 2, x64: bool = True) -> None:
    """Sets what the bits of a run depend on, before JAX starts its backend.

    XLA's CPU thread pool enters the bits of large products, so its size is pinned,
    whatever the machine has. Calling this again with the same values is free.

    Args:
      devices: CPU devices to show to JAX (it splits no work by itself;
        `research.descent.sweep` spreads blocks over them). At most `pool`: XLA gives
        its pool at least a thread for each device, which would change the bits.
      pool: Threads in XLA's CPU pool (the environment variable NPROC).
      x64: Whether arrays may be float64. Experiments on f - f* need it.
    Raises:
      ValueError: devices or pool is not a positive integer, or devices is larger than
        pool.
      RuntimeError: The backend has already started with other values; call `configure`
        first.
    Example:
      >>> configure(x64=True)
      >>> import jax.numpy as jnp
      >>> jnp.zeros(2).dtype
      dtype('float64')
    """
    for name, value in (("devices", devices), ("pool", pool)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(
                f"{name} must be a positive integer; got {name}={value!r}."
            )
        if value > MOST:
            raise ValueError(
                f"{name} must be at most {MOST:,}, as many as a machine may have; got "
                f"{name}={value:.1e}."
            )
    if devices > pool:
        raise ValueError(
            "devices must be at most pool, since XLA would enlarge the pool, which "
            f"enters the bits; got devices={devices}, pool={pool}. Call "
            f"configure(devices={devices}, pool={devices}), and compare only runs of "
            "the same pool."
        )
    jax.config.update("jax_enable_x64", x64)
    jax.config.update(
        "jax_default_matmul_precision", "highest"
    )  # A GPU may otherwise multiply in TF32.
    flags = re.sub(
        r"--xla_force_host_platform_device_count=\d+\s*",
        "",
        os.environ.get("XLA_FLAGS", ""),
    ).split()
    if not any(flag.startswith("--xla_backend_extra_options") for flag in flags):
        flags.append(SMALL_LOOP)
    flags.append(f"--xla_force_host_platform_device_count={devices}")
    wanted = {"NPROC": str(pool), "XLA_FLAGS": " ".join(flags)}
    changed = {
        name: value for name, value in wanted.items() if os.environ.get(name) != value
    }
    if changed and _backend_started():
        raise RuntimeError(
            f"JAX has already started its backend, so {', '.join(changed)} cannot "
            "change any more. Call research.backend.configure before the first JAX "
            "computation of the process."
        )
    os.environ.update(changed)


def _backend_started() -> bool:
    from jax._src import xla_bridge  # JAX has no public question for this.

    return bool(xla_bridge._backends)
