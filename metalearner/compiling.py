"""Loops that are compiled: what a proposal computes for hundreds of candidates, in calls that hold no interpreter lock.

A proposal was hundreds of calls of numpy on small arrays, most of which cost more than their arithmetic. Compiled
functions are told apart by their arguments' types and layouts, and each new combination is compiled anew, which takes
seconds. So they get C-contiguous arrays that can be written to, floats and ints, and nothing else; `warming` calls each
in the way in which it is called, and the tests count. What is compiled is kept beside the file that it stands in, and
is made anew when that file changes: so a compiled function calls none of another file.

Numba infers the types, and refuses what does not fit; the annotations are for readers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from numba import njit

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def compiled(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Sums may be added up in any order. NaN and infinity stay what they are: inactive parameters and failed trials."""
    return _kept(function, {"reassoc", "contract", "nsz"})


def compiled_in_order(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """For formulas whose order matters."""
    return _kept(function, {"contract"})


def _kept(function: Callable[_Arguments, _Result], freedom: set[str]) -> Callable[_Arguments, _Result]:
    """On disk, beside the file or in the user's cache; where neither can be written each process compiles."""
    try:
        return njit(cache=True, nogil=True, error_model="numpy", fastmath=freedom)(function)
    except RuntimeError:
        return njit(nogil=True, error_model="numpy", fastmath=freedom)(function)
