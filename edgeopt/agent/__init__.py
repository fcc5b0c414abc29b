"""The torch-free runner that travels to devices: NumPy, the standard library and one runtime.

It reads requests on its standard input and writes replies on its standard output, as ``protocol.py`` lays down.
The folder works from where it lies (``python -m edgeopt.agent``) and as a plain copy on a device
(``python -m agent``), on Python 3.8 and later: its imports are relative, its syntax is old, and nothing else of
edgeopt is imported here.
"""
