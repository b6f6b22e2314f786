"""Runs: training, scoring and drawing a model, and opening it again.

The work of a command is in the file of its name.
"""
