"""The command line: what a person types, and what scripts call with `--json`."""
