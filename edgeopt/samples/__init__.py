"""Ready applications around a bundle: sources, the engine, and reference samples that the application re-runs."""
