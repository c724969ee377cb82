"""`python -m workers.engine` compiles what can be compiled ahead; see `compiled`."""

from workers.engine.compiled import warm_up

warm_up()
