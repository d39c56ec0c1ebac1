"""Parse the flags of a command, with a hint for a misspelt one."""

import argparse
from collections.abc import Sequence
from typing import Any

from research.naming import nearest


class Parser(argparse.ArgumentParser):
    """An argparse parser that reports an unknown flag before anything else.

    argparse alone would report a misspelt required flag as missing. Help texts keep
    their line breaks, and flags cannot be abbreviated.
    """

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(
            prog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def parse_args(
        self,
        args: Sequence[str] | None = None,
        namespace: Any = None,
    ) -> Any:
        """Parse the words of a command line, and raise ValueError if a flag is unknown.

        Example:
          >>> parser = Parser("descent verify")
          >>> _ = parser.add_argument("--against", required=True)
          >>> parser.parse_args(["--agianst", "adam"])
          Traceback (most recent call last):
          ValueError: Unknown flag --agianst. Did you mean --against?
        """
        known = [flag for flag in self._option_string_actions if flag[:2] == "--"]
        for word in args or ():
            flag = word.partition("=")[0]
            if flag == "--":
                break
            if flag.startswith("--") and flag not in known:
                raise ValueError(f"Unknown flag {flag}. {nearest(flag, known)}")
        return super().parse_args(args, namespace)
