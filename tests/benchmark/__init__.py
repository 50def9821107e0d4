"""Benchmarks: what we take, against what the same work takes in other hands, side by side on one machine."""
