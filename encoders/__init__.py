"""Encoders: anything that makes the conditioning h of a decoder."""
