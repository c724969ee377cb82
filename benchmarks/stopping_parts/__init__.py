"""The parts of `benchmarks.stopping`: real learning curves, policies, replays, the report."""
