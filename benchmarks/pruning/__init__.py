"""Pruning beside a rival: the parts of ``benchmarks/pruning.py``."""
