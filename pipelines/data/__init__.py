"""Data sets, from files or your own arrays to batches."""
