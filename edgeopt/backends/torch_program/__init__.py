"""From the ONNX graph to a torch program, for runtimes whose compilers start from one (ExecuTorch, LiteRT).

The ONNX graph with its Q/DQ stays the one contract: what is built here computes that graph, node by node, and
nothing of the PyTorch side's own programs is seen. That is why torch is imported here and in no other backend.
"""
