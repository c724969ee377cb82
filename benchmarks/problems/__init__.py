"""Problems with a known optimum, to measure what proposes: standard functions and exact tables of trained networks.

Each problem belongs to the development split, on which choices were made, or to the report split, on which none were.
"""

from benchmarks.problems.functions import FUNCTIONS
from benchmarks.problems.problem import BenchmarkProblem, Split
from benchmarks.problems.tables import TABLES

PROBLEMS: tuple[BenchmarkProblem, ...] = (*FUNCTIONS, *TABLES)

__all__ = ["FUNCTIONS", "PROBLEMS", "TABLES", "BenchmarkProblem", "Split"]
