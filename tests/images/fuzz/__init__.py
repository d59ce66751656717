"""Coverage-guided fuzzing of what reads bytes from strangers: `python -m images.fuzz.TARGET -max_total_time=20`."""
