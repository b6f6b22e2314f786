"""Pipelines: the commands that train, score and sample models."""
