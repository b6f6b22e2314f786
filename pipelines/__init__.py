"""Pipelines: the commands that train, score and sample models."""

__version__ = "0.1.0"
