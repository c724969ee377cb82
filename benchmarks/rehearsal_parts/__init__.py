"""The parts of `benchmarks.rehearsal`: trained curves, the landscape drawn through them, whole jobs on it."""
