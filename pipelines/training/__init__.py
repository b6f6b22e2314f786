"""The training engine: one loop, its steps, and everything that lets a run go on after a crash."""
