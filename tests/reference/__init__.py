"""The ops as plain, slow, readable code: what tests and benchmarks compare with."""
