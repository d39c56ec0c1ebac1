"""Set JAX and XLA flags: devices, thread pool, float64, precision, portable bits.

Results have portable bits if they are exactly equal on all x86-64 processors with AVX2
and FMA. No other module of this package sets such flags.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import math
import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import threadpoolctl
from jax.interpreters import mlir
from jaxlib.mlir.dialects import stablehlo as hlo

from research import portable as settings
from research.checks import check_count, check_flag, check_path

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
# Terms of a sum of products in portable mode. Eigen cuts longer sums by the size of
# the first cache: with 32 kB at 288 terms of float32, 253 of float64.
MOST_TERMS = 192
PORTABLE_SINCE = (0, 10)  # Version of jaxlib. Older ones refuse a flag.
# Environment variables on which a compiled program may depend.
OF_PROGRAMS = ("XLA_FLAGS", "NPROC", *settings.PRODUCTS, "OPENBLAS_CORETYPE")
SECONDS_WORTH_KEEPING = 0.1  # Reading a small program takes a hundredth of a second.
MOST_BYTES = 2**30  # Of a folder's programs. The least recently used ones go first.


def configure(
    devices: int = 1, pool: int = 2, x64: bool = True, portable: bool = False
) -> None:
    """Set the JAX and XLA options on which the bits of results depend.

    Two results have the same bits if they are exactly equal. Call this function before
    JAX starts its backend, which happens at the first computation or earlier. A second
    call with the same values has no effect.

    The size of XLA's CPU thread pool affects the bits of large matrix products, so this
    function sets the size to `pool` on every machine. The function also sets JAX's
    default precision of matrix products to "highest". Otherwise a GPU may round the
    factors to TF32, a format with fewer digits than float32.

    Args:
      devices: Number of CPU devices that JAX shows, at most `pool`. JAX does not
        distribute work to the devices by itself. `research.descent.sweep` distributes
        batches of runs to the devices. The thread pool has at least one thread per
        device, so more devices than `pool` would change the size of the pool and thus
        the bits.
      pool: Number of threads in XLA's CPU pool (the environment variable NPROC).
      x64: If True, arrays may be float64. Experiments that measure the small difference
        between the objective and its minimum need float64.
      portable: If True, JAX's results have the same bits on every x86-64 processor with
        AVX2 and FMA under Linux, if the versions of the packages and `pool` are equal.
        With True, XLA compiles for AVX and uses no library that chooses kernels by the
        processor. A sum of products with more than 192 terms is computed in parts of at
        most 192 terms, which are added in a fixed order. JAX's linear algebra uses
        OpenBLAS's kernels for Haswell. Some results are not portable: the bits of XLA's
        convolutions with more than 250 terms still depend on the processor's cache. The
        models of this package are not affected, because they compute convolutions by
        matrix products. For portable results of NumPy and SciPy, call
        `research.portable.pin_libraries`, or pass the flag --portable to an experiment.
        portable=False does not undo an earlier call with portable=True.
    Raises:
      ValueError: devices or pool is not an integer from 1 to 65,536, or devices exceeds
        pool. Or `portable` is True, but a requirement is missing: Linux on x86-64 with
        AVX2 and FMA, and jaxlib 0.10 or newer.
      TypeError: `x64` or `portable` is neither True nor False.
      RuntimeError: `configure` is called too late. There are three cases. First, the
        backend started before any call of `configure`, or it started with another value
        of `devices` or `pool`. Second, `portable` is True, but the backend started with
        portable=False. Third, `portable` is True, but SciPy is already imported, and
        SciPy's OpenBLAS has chosen kernels that are not those for Haswell.
    Example:
      >>> configure(x64=True)
      >>> import jax.numpy as jnp
      >>> jnp.zeros(2).dtype
      dtype('float64')
    """
    devices, pool = _checked_sizes(devices, pool)
    check_flag("x64", x64)
    check_flag("portable", portable)
    if portable:
        _check_portable()
    wanted = _variables(devices, pool, portable)
    changed = {
        name: value for name, value in wanted.items() if os.environ.get(name) != value
    }
    if changed and _backend_started():
        asked = f"devices={devices}, pool={pool}" + ", portable=True" * portable
        raise RuntimeError(
            f"JAX has already started its backend with other values, so {asked} can no "
            "longer be set. Call research.backend.configure before the first JAX "
            "computation of the process. For float64 alone, call "
            "jax.config.update('jax_enable_x64', True)."
        )
    jax.config.update("jax_enable_x64", x64)
    # A GPU may otherwise multiply in TF32.
    jax.config.update("jax_default_matmul_precision", "highest")
    os.environ.update(changed)
    if portable:
        # SciPy has not been imported, or was with this value.
        os.environ["OPENBLAS_CORETYPE"] = settings.LIBRARIES["OPENBLAS_CORETYPE"]
        _split_products()
        _divide_by_roots()


def _checked_sizes(devices: Any, pool: Any) -> tuple[int, int]:
    """Return devices and pool as Python integers.

    Raise ValueError unless 1 <= devices <= pool <= MOST, and both are integers.
    """
    for name, value in (("devices", devices), ("pool", pool)):
        check_count(name, value, most=MOST)
    devices, pool = int(devices), int(pool)
    if devices > pool:
        raise ValueError(
            "devices must be at most pool: otherwise XLA enlarges the pool, which "
            f"changes the bits of results; got devices={devices}, pool={pool}. Call "
            f"configure(devices={devices}, pool={devices}), and compare bits only "
            "between runs with the same pool."
        )
    return devices, pool


def _variables(devices: int, pool: int, portable: bool) -> dict[str, str]:
    """Return the environment variables that XLA must find, {name: value}."""
    flags = re.sub(
        r"--xla_force_host_platform_device_count=\d+\s*",
        "",
        os.environ.get("XLA_FLAGS", ""),
    ).split()
    if not any(flag.startswith("--xla_backend_extra_options") for flag in flags):
        flags.append(SMALL_LOOP)
    flags.append(f"--xla_force_host_platform_device_count={devices}")
    wanted = {"NPROC": str(pool)}
    if portable:
        names = tuple(flag.partition("=")[0] for flag in settings.FLAGS)
        flags = [flag for flag in flags if flag.partition("=")[0] not in names]
        flags += settings.FLAGS
        wanted |= settings.PRODUCTS
    wanted["XLA_FLAGS"] = " ".join(flags)
    return wanted


def keep_programs(folder: str | Path | None = None) -> Path | None:
    """Keep compiled programs on disk, so that later processes need not compile them.

    JAX's persistent compilation cache does this work. This function chooses the folder
    of the cache. Programs that compile in less than 0.1 s are not kept. A program may
    depend on the version of jaxlib, the processor, the flags of XLA and the size of the
    thread pool, so each combination of these has its own folder. A program that is read
    from disk gives exactly the same results as a newly compiled program. If the file of
    a program is damaged, a warning says so, and the program is compiled again.

    Call this function after `configure`, because `configure` sets the flags of XLA and
    the size of the thread pool. Call it before the first compilation, because programs
    that were compiled earlier are not kept. Experiments and the command `descent` call
    this function, but `import research` does not.

    Args:
      folder: Parent of the folders of all combinations. None means the folder that the
        environment variable DESCENT_PROGRAMS names. If this variable is not set, None
        means `descent/programs` in the user's cache folder. The folder may be deleted
        at any time.
    Returns:
      The folder of this process's programs, which holds at most 1 GiB. The result is
      None if this call changes nothing. There are four possible reasons. First, the
      user has turned JAX's cache off (JAX_ENABLE_COMPILATION_CACHE=false). Second,
      JAX's cache has a folder already, for example one that the user has chosen
      (JAX_COMPILATION_CACHE_DIR). Third, the folder cannot be created or written.
      Fourth, Python has the module zstandard or compression.zstd. With such a module,
      JAX would compress the files without a checksum, so damage in a file could remain
      unnoticed.
    Raises:
      TypeError: `folder` is neither a path nor None.
      ValueError: `folder` is an empty path or contains a NUL character.
    Example:
      >>> folder = keep_programs()  # Before the first compilation.
    """
    if folder is not None:
        check_path("folder", folder)
    chosen_by_user = jax.config.jax_compilation_cache_dir
    if chosen_by_user or not jax.config.jax_enable_compilation_cache:
        return None
    if any(map(_is_installed, ("zstandard", "compression.zstd"))):
        return None
    import pooch

    chosen = folder or os.environ.get("DESCENT_PROGRAMS")
    own = Path(chosen or pooch.os_cache("descent") / "programs") / _combination()
    try:
        own.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(own, os.W_OK):
        return None
    for name, value in (
        ("jax_compilation_cache_dir", str(own)),
        ("jax_compilation_cache_max_size", MOST_BYTES),
        ("jax_persistent_cache_min_compile_time_secs", SECONDS_WORTH_KEEPING),
    ):
        jax.config.update(name, value)
    return own


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # Its package is missing.
        return False


def _combination(cpuinfo: str | Path = "/proc/cpuinfo") -> str:
    """Return a folder name for the facts on which compiled programs depend.

    The facts are the version of jaxlib, the processor and some environment variables.
    """
    path, version = Path(cpuinfo), importlib.metadata.version("jaxlib")
    text = path.read_text(errors="replace") if path.exists() else platform.processor()
    # The first processor's lines. Its current frequency does not count.
    lines = re.findall(r"^(?:model name|flags|Features)\s*:.*$", text, re.MULTILINE)
    facts = [version, platform.machine(), *(lines[:2] or [text])]
    facts += [f"{name}={os.environ.get(name, '')}" for name in OF_PROGRAMS]
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    return f"jaxlib-{version}-{digest[:16]}"


def is_portable() -> bool:
    """Return whether this process called `configure` with `portable=True`.

    If this function returns True, JAX's results have the same bits on all processors
    that the docstring of `configure` names.
    """
    flags = os.environ.get("XLA_FLAGS", "").split()
    return _split_products.cache_info().currsize > 0 and {*settings.FLAGS} <= {*flags}


def _check_portable() -> None:
    settings.check_processor()
    version = importlib.metadata.version("jaxlib")
    if tuple(map(int, version.split(".")[:2])) < PORTABLE_SINCE:
        raise ValueError(
            f"portable=True needs jaxlib 0.10 or newer; this is jaxlib {version}."
        )
    wanted = settings.LIBRARIES["OPENBLAS_CORETYPE"]
    others = {
        library["architecture"]
        for library in threadpoolctl.threadpool_info()
        if "scipy.libs" in library["filepath"] and library.get("architecture") != wanted
    }
    if "scipy.linalg" in sys.modules and others:
        raise RuntimeError(
            "SciPy's OpenBLAS, which JAX's linear algebra uses too, has already chosen "
            f"its kernels for {', '.join(others)}. Call configure(portable=True) "
            f"before SciPy is imported, or set OPENBLAS_CORETYPE={wanted} before "
            "Python starts."
        )


def _cpu_lowering(primitive: Any) -> Any:
    """Return the function by which JAX lowers a primitive for the CPU."""
    registered = mlir._platform_specific_lowerings["cpu"]  # JAX cannot be asked for it.
    entry: Any = registered.get(primitive) or mlir._lowerings[primitive]
    return getattr(entry, "rule", entry)


@functools.cache
def _split_products() -> None:
    """Make the CPU compute long sums of products in parts, in a fixed order."""
    product = jax.lax.dot_general_p
    original = _cpu_lowering(product)

    def lowering(ctx: Any, lhs: Any, rhs: Any, **options: Any):
        (contracted, _), _ = options["dimension_numbers"]
        terms = math.prod(ctx.avals_in[0].shape[axis] for axis in contracted)
        exact = not jax.numpy.issubdtype(ctx.avals_out[0].dtype, jax.numpy.inexact)
        if terms <= MOST_TERMS or exact:
            return original(ctx, lhs, rhs, **options)
        return mlir.lower_fun(_in_parts, multiple_results=False)(
            ctx, lhs, rhs, **options
        )

    mlir.register_lowering(product, lowering, platform="cpu")


@functools.cache
def _divide_by_roots() -> None:
    """Make the CPU compute 1 / √x by a root and a division.

    IEEE 754 determines how both are rounded. XLA alone would compute 1 / √x from the
    processor's estimate (vrsqrtps), which differs between Intel and AMD. XLA would use
    this estimate even if a program divides by a root. A barrier after each root
    prevents this.
    """
    root = jax.lax.sqrt_p
    original = _cpu_lowering(root)

    def rooted(ctx: Any, x: Any, **options: Any):
        results = original(ctx, x, **options)
        return hlo.OptimizationBarrierOp(list(results)).results

    def inverse(x: Any, **options: Any) -> Any:
        return jax.lax.div(jax.lax.full_like(x, 1), jax.lax.sqrt(x))

    mlir.register_lowering(root, rooted, platform="cpu")
    mlir.register_lowering(
        jax.lax.rsqrt_p, mlir.lower_fun(inverse, multiple_results=False), platform="cpu"
    )


def _in_parts(lhs: Any, rhs: Any, *, dimension_numbers: Any, **options: Any) -> Any:
    """Return a product as a sum of products with at most MOST_TERMS terms.

    Parts in half precision are added in float32.
    """
    (left, right), (left_batch, right_batch) = dimension_numbers
    if len(left) > 1:
        lhs, rhs = _flat(lhs, left, left_batch), _flat(rhs, right, right_batch)
        left, right = (lhs.ndim - 1,), (rhs.ndim - 1,)
        left_batch = right_batch = tuple(range(len(left_batch)))
    numbers = ((left, right), (left_batch, right_batch))
    dtype = options.pop("preferred_element_type") or jax.numpy.result_type(lhs, rhs)
    wide = jax.numpy.promote_types(dtype, jax.numpy.float32)

    def part(start: Any, length: int) -> Any:
        cut = jax.lax.dynamic_slice_in_dim
        return jax.lax.dot_general(
            cut(lhs, start, length, left[0]),
            cut(rhs, start, length, right[0]),
            numbers,
            preferred_element_type=wide,
            **options,
        )

    whole, rest = divmod(lhs.shape[left[0]], MOST_TERMS)
    add: Callable[..., Any] = lambda i, sum: sum + part(i * MOST_TERMS, MOST_TERMS)
    total = jax.lax.fori_loop(1, whole, add, part(0, MOST_TERMS))
    if rest:
        total += part(whole * MOST_TERMS, rest)
    return total.astype(dtype)


def _flat(array: Any, contracted: Any, batch: Any) -> Any:
    """Move the batch axes to the front, and join the contracted axes at the end."""
    free = [d for d in range(array.ndim) if d not in (*contracted, *batch)]
    kept = (*batch, *free)
    array = array.transpose(*kept, *contracted)
    return array.reshape(*array.shape[: len(kept)], -1)


def _backend_started() -> bool:
    from jax._src import xla_bridge  # JAX has no public function for this.

    return bool(xla_bridge._backends)
