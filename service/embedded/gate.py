"""A Python child that imports what it will need while Postgres still starts, and begins once the database is ready.

    python -m service.embedded.gate GATE_FILE IMPORT,IMPORT,... MODULE [ARGUMENT ...]

The gate file appears when the migrations are done; then MODULE runs as `python -m MODULE ARGUMENT ...` would. A child
that is restarted later finds the file and begins at once, and so does one whose GATE_FILE is empty.
"""

from __future__ import annotations

import gc
import importlib
import runpy
import sys
import time
from pathlib import Path

_POLL_S = 0.01


def gated(gate: Path | None, imports: tuple[str, ...], module: str, *arguments: str) -> tuple[str, ...]:
    """The arguments of `main` for a child that runs `module`; without a gate it waits for nothing."""
    return (str(gate or ""), ",".join(imports), module, *arguments)


def command(gate: Path | None, imports: tuple[str, ...], module: str, *arguments: str) -> tuple[str, ...]:
    """The command line of a gated child that is started as a program of its own."""
    return (sys.executable, "-m", "service.embedded.gate", *gated(gate, imports, module, *arguments))


def import_all(names: str) -> None:
    """Import NAME,NAME,... and look for no garbage meanwhile: there is none, and looking takes a tenth of the time."""
    gc.disable()
    for name in filter(None, names.split(",")):
        importlib.import_module(name)
    gc.freeze()
    gc.enable()


def main(arguments: list[str]) -> None:
    """Import, wait, become the module; see the module's docstring for `arguments`."""
    gate, imports, module, *rest = arguments
    import_all(imports)
    while gate and not Path(gate).exists():
        time.sleep(_POLL_S)
    sys.argv = [module, *rest]
    # As `__main__` and altering sys, so that processes that the module spawns find the right main module.
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
