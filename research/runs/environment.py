"""What the bits of a run depend on beside its config: versions, processor, flags, devices, commit."""

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any, cast

PACKAGES = ("jax", "jaxlib", "optax", "flax", "chex", "numpy", "scipy", "scikit-learn", "descent-jax")


def environment(width: int | None = None) -> dict[str, Any]:
    """Describes where a run computes, in JSON values; no date, host name, path or address is among them.

    It starts JAX's backend, whose devices it names: call `backend.configure` first.

    Args:
      width: Lanes that advance together (W), which enters the bits; None where no lanes are used.
    Returns:
      `python`; `versions` of the packages (None: not installed); `processor` (model, instruction sets, cores);
      `xla_pool` (NPROC), `xla_flags` and `jax_variables`, as the process saw them; `x64`; `matmul_precision`;
      `devices` (kind, platform, count); `lane_width`; `git` (commit and whether files differ from it, or None outside
      a repository of this project).
    Example:
      >>> environment(width=32)["lane_width"]
      32
    """
    import jax  # Here, so that reading a command line does not wait for it.

    devices, settings = jax.devices(), cast(Any, jax.config)
    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "processor": processor(),
        "xla_pool": os.environ.get("NPROC"),
        "xla_flags": " ".join(map(_without_path, os.environ.get("XLA_FLAGS", "").split())),
        "jax_variables": {
            name: _without_path(value) for name, value in sorted(os.environ.items()) if name.startswith("JAX_")
        },
        "x64": settings.jax_enable_x64,
        "matmul_precision": settings.jax_default_matmul_precision,
        "devices": {"kind": devices[0].device_kind, "platform": devices[0].platform, "count": len(devices)},
        "lane_width": width,
        "git": git_state(Path(__file__).parents[2]),
    }


def processor(cpuinfo: str | Path = "/proc/cpuinfo") -> dict[str, Any]:
    """The processor's model name, the instruction sets that XLA chooses between, and the number of cores."""
    path = Path(cpuinfo)
    text = path.read_text(errors="replace") if path.exists() else ""
    fields = dict(re.findall(r"^([^\n:\t]+?)\s*: *([^\n]*)$", text, flags=re.MULTILINE))
    sets = fields.get("flags", fields.get("Features", "")).split()  # Linux on x86, Linux on Arm.
    matter = r"sse4_\d|f16c|fma|avx\w*|amx\w*|asimd\w*|sve\w*|bf16|i8mm|rvv?"
    return {
        "model": fields.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "instruction_sets": sorted(name for name in sets if re.fullmatch(matter, name)),
        "cores": os.cpu_count(),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit of the repository at `folder`, and whether its files differ from that commit.

    None where the folder is not the top of a repository (an installed copy may lie inside somebody else's), there is
    no commit yet, or git is missing.
    """
    top, _, commit = (_git(folder, "rev-parse", "--show-toplevel", "HEAD") or "").strip().partition("\n")
    status = _git(folder, "status", "--porcelain")
    if not commit or status is None or Path(top).resolve() != folder.resolve():
        return None
    return {"commit": commit, "dirty": bool(status)}


def _git(folder: Path, *words: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(folder), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _without_path(setting: str) -> str:
    """A manifest is shared: a setting's value that may be a path or an address is left out."""
    return re.sub(r"[^=]*[/\\:].*", "(path or address)", setting, flags=re.DOTALL)
