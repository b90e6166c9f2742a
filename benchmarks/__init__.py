"""Times redray beside Ray and other peers, in the same sitting. Start with `python -m benchmarks.run --help`."""
