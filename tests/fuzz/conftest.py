"""The fuzzer's modules can be imported by name: with importlib, pytest puts no folder
on the path.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
