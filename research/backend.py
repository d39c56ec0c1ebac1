"""Set JAX and XLA flags: devices, thread pool, float64, matmul precision, loop kernels.

No other module of this package sets such flags.
"""

import os
import re

import jax

# XLA's CPU backend compiles a loop whose buffers are below a threshold into one kernel.
# Otherwise it calls a kernel for each operation of each step. Measured at 256 kB on two
# x86-64 cores with jax 0.10.2: a stochastic step takes a third of the time or less, a
# mini-batch step (32 examples) down to half, a full-batch step the same time, and
# compilation half the time. jax 0.7.2 gains as much; jax 0.12 is as fast without this
# flag. Like every flag, it changes bits.
SMALL_LOOP = (
    "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=262144"
)


MOST = 65_536  # Largest number of devices, and of threads.


def configure(devices: int = 1, pool: int = 2, x64: bool = True) -> None:
    """Set the JAX and XLA options on which the bits of a run depend.

    Call this function before JAX starts its backend. The size of XLA's CPU thread pool
    affects the bits of large products, so the size is the same on every machine. A
    second call with the same values has no effect.

    Args:
      devices: Number of CPU devices that JAX shows, at most `pool`. JAX does not
        distribute work to the devices by itself. `research.descent.sweep` distributes
        batches of runs to the devices. The thread pool has at least one thread per
        device, so more devices than `pool` would change the size of the pool and thus
        the bits.
      pool: Number of threads in XLA's CPU pool (the environment variable NPROC).
      x64: Whether arrays may be float64. Experiments that measure f - f* need float64.
    Raises:
      ValueError: devices or pool is not a positive integer, or devices exceeds pool.
      RuntimeError: The backend has already started with other values. Call `configure`
        earlier.
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
                f"{name} must be at most {MOST:,}; got {name}={value:.1e}."
            )
    if devices > pool:
        raise ValueError(
            "devices must be at most pool: otherwise XLA enlarges the pool, which "
            f"changes the bits of results; got devices={devices}, pool={pool}. Call "
            f"configure(devices={devices}, pool={devices}), and compare bits only "
            "between runs with the same pool."
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
            f"JAX has already started its backend, so {', '.join(changed)} can no "
            "longer be changed. Call research.backend.configure before the first JAX "
            "computation of the process."
        )
    os.environ.update(changed)


def _backend_started() -> bool:
    from jax._src import xla_bridge  # JAX has no public function for this.

    return bool(xla_bridge._backends)
