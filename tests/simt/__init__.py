"""Runs the CUDA kernels' own source on the CPU: single instruction, multiple threads, without a GPU."""
