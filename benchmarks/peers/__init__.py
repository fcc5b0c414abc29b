"""edgeopt beside its peers: the parts of ``benchmarks/peers.py``."""
