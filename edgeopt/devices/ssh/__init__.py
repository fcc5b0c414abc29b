"""Devices behind SSH: the agent and the engine are sent, run in a directory of their own, and removed."""
