"""Measurements that are over at once, for tests of everything but the figures."""

QUICK = (
    "measure.latency_samples=20",
    "measure.roofline=false",
    "measure.warmup=2",
    "measure.block=10",
    "measure.batch_sizes=[1]",
)
