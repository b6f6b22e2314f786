"""Evaluation: exact negative log-likelihoods, bounds, latents and leaderboards."""
