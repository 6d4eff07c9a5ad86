"""Benchmarks: what the lab's own machinery costs beside the bare models it runs."""
