"""A stand-in for coremltools on a Mac: there is no macOS here, so ``verify_coreml.py`` runs against this.

It computes the ONNX graph with ONNX's reference evaluator under the package's names, and can be told to be wrong. What it
can show: that the script reads the bundle's files, feeds what the package declares, compares and ends with the right code.
What it cannot show: that Core ML loads the package and computes the same.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["install"]

PACKAGE = """
import enum, json, os
import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

class ComputeUnit(enum.Enum):
    ALL = 1
    CPU_ONLY = 2
    CPU_AND_GPU = 3
    CPU_AND_NE = 4

class MLModel:
    def __init__(self, path, compute_units):
        if os.environ.get("STAND_IN") == "refuses":
            raise RuntimeError("Error compiling model: \\"the package is broken\\".")
        assert isinstance(compute_units, ComputeUnit) and os.path.isdir(path), path
        self.settings = json.load(open(os.path.join(os.path.dirname(path), "coreml.json")))
        self.graph = ReferenceEvaluator(onnx.load(os.environ["STAND_IN_GRAPH"]))

    def predict(self, data):
        how = os.environ.get("STAND_IN")
        if how == "linux":
            raise Exception("Model prediction is only supported on macOS version 10.13 or later.")
        ports = self.settings["inputs"]
        for port in ports:
            given = data[port["feature"]]
            assert (str(given.dtype), list(given.shape)) == (port["dtype"], port["shape"]), (port, given.dtype, given.shape)
        wide = {i.name: onnx.helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type) for i in self.graph.proto_.graph.input}
        made = self.graph.run(None, {p["name"]: data[p["feature"]].astype(wide[p["name"]]) for p in ports})
        outputs = {p["feature"]: v.astype(p["dtype"]) for p, v in zip(self.settings["outputs"], made)}
        first = self.settings["outputs"][0]["feature"]
        if how == "wrong":
            outputs[first] = outputs[first] * 1.1
        elif how == "nan":
            outputs[first] = outputs[first] * np.nan
        elif how == "renamed":
            outputs["var_7"] = outputs.pop(first)
        return outputs

class models:
    MLModel = MLModel
"""


def install(folder: Path) -> Path:
    """Write the module ``coremltools`` below ``folder``; returns what goes onto ``PYTHONPATH``."""
    (folder / "coremltools").mkdir(parents=True)
    (folder / "coremltools" / "__init__.py").write_text(PACKAGE)
    return folder
