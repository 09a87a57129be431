"""A launcher of processes that ends when its run does.

`parfocal train` starts it as `python -m parfocal.train.spread MODULE ARG...`, with PyTorch's
launcher or Accelerate's as MODULE.
"""

from __future__ import annotations

import runpy
import sys

from parfocal.train.processes import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
