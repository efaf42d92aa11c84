"""Answering requests: loaded models, batching, out-of-distribution check."""
