"""The console command `descent`, as `python -m research`."""

import sys

from research.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
