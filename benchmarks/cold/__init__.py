"""The parts of `benchmarks.cold_proposals`: the methods compared, the runs and their cache, the report."""
