"""`python -m metalearner` compiles what can be compiled ahead; see `compiling`."""

from metalearner.warming import warm_up

warm_up()
