"""The dataset contract, its sources, its splits."""
