"""Training engine: one loop, its steps, and everything needed to resume a run after a crash."""
