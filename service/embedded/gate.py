"""A Python child that imports what it will need while Postgres still starts, and begins once the database is ready.

    python -m service.embedded.gate GATE_FILE IMPORT,IMPORT,... MODULE [ARGUMENT ...]

The gate file appears when the migrations are done; then MODULE runs as `python -m MODULE ARGUMENT ...` would. A child
that is restarted later finds the file and begins at once.
"""

from __future__ import annotations

import importlib
import runpy
import sys
import time
from pathlib import Path

_POLL_S = 0.01


def command(gate: Path, imports: tuple[str, ...], module: str, *arguments: str) -> tuple[str, ...]:
    """The command line of a gated child."""
    return (sys.executable, "-m", "service.embedded.gate", str(gate), ",".join(imports), module, *arguments)


def main(arguments: list[str]) -> None:
    """Import, wait, become the module; see the module's docstring for `arguments`."""
    gate, imports, module, *rest = arguments
    for name in filter(None, imports.split(",")):
        importlib.import_module(name)
    while not Path(gate).exists():
        time.sleep(_POLL_S)
    sys.argv = [module, *rest]
    # As `__main__` and altering sys, so that processes that the module spawns find the right main module.
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
