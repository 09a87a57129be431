"""`python -m parfocal` is the `parfocal` command."""

from __future__ import annotations

import sys

from parfocal.cli import main

if __name__ == "__main__":
    sys.exit(main())
