"""Lossless compression by a trained model: file format, coders, and other formats to compare."""
