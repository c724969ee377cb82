"""What is compiled is compiled once: ahead, for the types that it is called with."""

from __future__ import annotations

import subprocess
import sys

from numba import njit

PROGRAM = """
import numpy as np
from foretune.metrics import Goal
from foretune.parameters import Bool, Categorical, Float, Int
from foretune.spaces import Space
from metalearner import Effort, Memory, Observation, Problem, compiled_outcomes, compiled_process, compiled_rows
from metalearner import propose, recommend
from metalearner.warming import warm_up

warm_up()
def compiled():
    return {name: one.signatures for part in (compiled_outcomes, compiled_process, compiled_rows)
            for name, one in vars(part).items() if hasattr(one, "signatures")}
before = compiled()
assert sum(map(len, before.values())) > 10
space = Space.of(Float("x", 0.0, 1.0), Int("n", 1, 9), Categorical("c", ["a", "b", "d"]),
                 Bool("f"), Float("y", 1e-3, 1.0, log=True, when={"c": ["a"]}))
generator = np.random.default_rng(0)
for defaults in (None, {"x": 0.3, "n": 2, "c": "b", "f": True}):
    problem = Problem(space, Goal.MINIMIZE, 3, 100, 1, defaults=defaults, metric="loss")
    for effort in Effort:
        memory, seen = Memory(), []
        for index in range(80):
            (one,) = propose(problem, seen, [{"x": 0.5, "n": 1, "c": "a", "f": True, "y": 0.1}] * (index % 3), 1,
                             index=index, memory=memory, effort=effort)
            value = round(float(generator.random()), 1)
            seen.append(Observation(one.configuration, value, infeasible=index % 9 == 8, finished=index % 5 > 0))
        recommend(problem, seen, defaults, 3)
after = compiled()
assert after == before, {name: (one, after[name]) for name, one in before.items() if after[name] != one}
"""


def test_proposals_compile_nothing_that_was_not_compiled_ahead() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=110)


def test_where_no_folder_can_be_written_it_is_compiled_all_the_same() -> None:
    from metalearner import compiling

    names: dict[str, object] = {}
    exec(compile("def doubled(x):\n    return 2 * x\n", "<nowhere>", "exec"), names)  # a file that has no folder
    doubled = names["doubled"]
    try:
        njit(cache=True)(doubled)
    except RuntimeError as error:
        assert "cannot cache" in str(error)  # noqa: PT017 - else the test would show nothing
    else:
        raise AssertionError("numba caches functions of no file by now")
    assert compiling.compiled(doubled)(21) == 42  # type: ignore[arg-type]
