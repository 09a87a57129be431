"""Entry point of every training process: `python -m parfocal.train.worker OUT`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from parfocal.errors import ParfocalError
from parfocal.train.processes import end_with_parent
from parfocal.train.run import work

if __name__ == "__main__":
    end_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        work(Path(sys.argv[1]))
    except ParfocalError as err:
        sys.exit(f"error: {err}")
