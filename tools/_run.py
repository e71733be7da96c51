"""Runs a module of this folder by its name: ``python tools/_run.py campaigns.cache_node ...``.

Python puts the folder of what it starts at the front of the path, so that the modules find each other, whatever the
working directory and the environment are.
"""

from __future__ import annotations

import runpy
import sys

if __name__ == "__main__":
    sys.argv.pop(0)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
