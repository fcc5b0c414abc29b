"""Limits to verdict."""
