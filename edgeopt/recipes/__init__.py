"""Recipes as data: schema, loader, overrides."""
