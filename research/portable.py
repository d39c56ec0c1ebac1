"""Settings that give the same bits on every x86-64 processor with AVX2 and FMA.

NumPy chooses its kernels when it is imported, so the settings must be made before.
Therefore this module imports neither JAX nor NumPy.
`research.backend.configure(portable=True)` makes the settings of JAX.
"""

import os
import platform
import re
import sys
from pathlib import Path

NEEDED = ("avx2", "fma")  # As Linux names them in /proc/cpuinfo.
# XLA compiles for AVX, whatever the processor has. (With AVX2 it would tune its code to
# the model of a processor that has nothing newer, and sum in another order.) YNNPACK
# and XNNPACK, which choose kernels by the processor, get no products.
FLAGS = (
    "--xla_cpu_max_isa=AVX",
    "--xla_cpu_use_xnnpack=false",
    "--xla_cpu_experimental_ynn_fusion_type=",
)
# Products of XLA without oneDNN, whose kernels depend on the processor.
PRODUCTS = {"TENSORFLOW_USE_CUSTOM_CONTRACTION_KERNEL": "false"}
# OpenBLAS of NumPy and of SciPy, which JAX uses for linear algebra, and the loops of
# NumPy, which ignores the names of features that its version does not know.
LIBRARIES = {
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": (
        "X86_V4 AVX512F AVX512CD AVX512_KNL AVX512_KNM AVX512_SKX AVX512_CLX "
        "AVX512_CNL AVX512_ICL AVX512_SPR"
    ),
}


def pin_libraries() -> None:
    """Set the environment variables by which NumPy and SciPy choose their kernels.

    Kernels are compiled routines for certain processors. With these variables, the
    results of NumPy and SciPy have the same bits on every x86-64 processor with AVX2
    and FMA under Linux, if the versions of both packages are the same.

    Raises:
      ValueError: This machine does not run Linux on x86-64 with AVX2 and FMA, or NumPy
        was imported before the variables were set. In the second case, the message says
        what to set before Python starts.
    """
    check_processor()
    if are_libraries_pinned():
        return
    if "numpy" in sys.modules:
        words = " ".join(f"{name}='{value}'" for name, value in LIBRARIES.items())
        raise ValueError(
            "portable bits of NumPy and SciPy need environment variables, but NumPy is "
            f"imported already. Set them before Python starts: {words}"
        )
    os.environ.update(LIBRARIES)


def are_libraries_pinned() -> bool:
    """Return whether the environment variables of `pin_libraries` are set.

    The result is True if each of these variables has the value that `pin_libraries`
    gives it. The variables determine which kernels (compiled routines) NumPy and SciPy
    choose, and the kernels determine the bits of the results.
    """
    return all(os.environ.get(name) == value for name, value in LIBRARIES.items())


def check_processor(cpuinfo: str | Path = "/proc/cpuinfo") -> None:
    """Raise ValueError unless this machine runs Linux on x86-64 with AVX2 and FMA.

    Args:
      cpuinfo: File in which Linux lists the features of the processor.
    Raises:
      ValueError: AVX2 or FMA is missing, the file does not exist, or the processor is
        not x86-64.
    Example:
      >>> check_processor("/no/such/file")
      Traceback (most recent call last):
      ValueError: portable bits need Linux on an x86-64 processor with AVX2 and FMA; ...
    """
    path = Path(cpuinfo)
    text = path.read_text(errors="replace") if path.exists() else ""
    found = re.search(r"^flags\s*:(.*)$", text, flags=re.MULTILINE)
    sets = found[1].split() if found else []
    missing = [name.upper() for name in NEEDED if name not in sets]
    if missing or platform.machine() not in ("x86_64", "AMD64"):
        what = f"without {' and '.join(missing)}" if missing else "not x86-64"
        raise ValueError(
            "portable bits need Linux on an x86-64 processor with AVX2 and FMA; this "
            f"is {platform.system()} on {platform.machine()}, {what}. Leave portable "
            "out: the bits are then those of this kind of processor."
        )
