"""Logs of the optimization benchmark (track 3) of the repository modded-nanogpt."""

from research.datasets.finding import find_files, find_source
from research.datasets.hashing import logs_in


def benchmark_logs() -> dict[str, str]:
    """Load the text files of the optimization benchmark (track 3) of modded-nanogpt.

    modded-nanogpt is a GitHub repository. Its benchmark trains one network with many
    update rules. The best rule is the one that needs the fewest steps to a validation
    loss of 3.28. The text files of the benchmark are README.md, notes, and the logs of
    trainings. Each log also contains the code that ran. The files are those of the
    commit f411b3d. One archive contains all files. If the archive is missing, it is
    downloaded.

    Returns:
      Dict from the path of each file to its text, sorted by path. The paths are
      "README.md", "results/....txt" and so on. Bytes that are not UTF-8 become the
      replacement character.
    Raises:
      ValueError: The archive is damaged.
      OSError: The archive is missing and cannot be downloaded. The message says how to
        get it.
    References:
      Jordan (2026), Modded-NanoGPT Optimization Benchmark,
      github.com/KellerJordan/modded-nanogpt, records/track_3_optimization.
    """
    path = find_files(find_source("track_3", "benchmark_logs"))[0]
    return {
        name: content.decode(errors="replace")
        for name, content in sorted(logs_in(path))
    }
