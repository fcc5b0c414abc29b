"""Devices as data: the schema, the catalog, the machine at hand."""
