"""The parts of `benchmarks.transfer`: tables, histories made of them, methods, runs and their cache, the report."""
