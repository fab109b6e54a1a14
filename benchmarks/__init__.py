"""Claims of speed, memory and accuracy, one script each; run as `python -m benchmarks.NAME`."""
