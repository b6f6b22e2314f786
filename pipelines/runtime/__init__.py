"""Errors, files, messages, devices and provenance: what every process needs."""
