"""The torch-free runner that travels to devices: NumPy, the standard library and one runtime."""
