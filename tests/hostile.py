"""Files that mean harm or are broken, each made in one place; every room that must refuse them makes them here."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

Members = dict[str, bytes]
Edit = Callable[[Members], None]


class Payload:
    """Makes the folder ``marker`` when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


def saved(value: object) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def touch(marker: Path) -> str:
    """An expression that makes the folder ``marker`` when it is evaluated."""
    return f"__import__('os').mkdir('{marker}')"


def tampered(archive: Path, path: Path, edit: Edit) -> Path:
    """Copy a torch.export archive to ``path`` with its members (by name below its top folder) edited."""
    with zipfile.ZipFile(archive) as old:
        members = {name.split("/", 1)[1]: old.read(name) for name in old.namelist()}
    edit(members)
    with zipfile.ZipFile(path, "w") as new:
        for name, content in members.items():
            new.writestr(f"hostile/{name}", content)
    return path


def of_program(edit: Callable[[dict[str, Any]], None]) -> Edit:
    """Edit the archive's program, parsed."""

    def members(files: Members) -> None:
        program = json.loads(files["models/model.json"])
        edit(program)
        files["models/model.json"] = json.dumps(program).encode()

    return members


def sample_inputs(marker: Path) -> Edit:
    """A pickle among the sample inputs."""
    return lambda members: members.update({"data/sample_inputs/model.pt": saved((Payload(marker),))})


def pickled_weight(marker: Path) -> Edit:
    """A weight stored as a pickle."""

    def edit(members: Members) -> None:
        name = "data/weights/model_weights_config.json"
        config = json.loads(members[name])
        entry = next(iter(config["config"].values()))
        entry["use_pickle"] = True
        members[name] = json.dumps(config).encode()
        members[f"data/weights/{entry['path_name']}"] = saved(Payload(marker))

    return edit


def opaque_constant(marker: Path) -> Edit:
    """An opaque object among the constants."""

    def edit(members: Members) -> None:
        entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        members["data/constants/model_constants_config.json"] = json.dumps({"config": {"c": entry}}).encode()
        members["data/constants/opaque_obj_0"] = pickle.dumps(Payload(marker))

    return edit


def symbolic_size(marker: Path) -> Edit:
    """An expression as a symbolic size."""

    def edit(program: dict[str, Any]) -> None:
        values = program["graph_module"]["graph"]["tensor_values"]
        values["x" if "x" in values else "input"]["sizes"][0] = {
            "as_expr": {"expr_str": touch(marker), "hint": {"as_int": 4}}
        }

    return of_program(edit)


def shape_guard(marker: Path) -> Edit:
    """An expression as a shape guard."""
    return of_program(lambda program: program.update(guards_code=[f"{touch(marker)} is None"]))


def whole_state_dict(marker: Path) -> Edit:
    """The whole state dict as a pickle, as older torch wrote it."""
    return lambda members: members.update({"data/weights/model.pt": saved({"w": Payload(marker)})})


# Name → (how the archive is edited, how the refusal names it). Plain torch executes every one of them.
ARCHIVES: dict[str, tuple[Callable[[Path], Edit], str]] = {
    "a pickle among the sample inputs": (
        sample_inputs,
        r"data/sample_inputs/model\.pt: a pickle that would import .*mkdir",
    ),
    "a weight stored as a pickle": (pickled_weight, r"data/weights/weight_\d+: .*use_pickle"),
    "an opaque object among the constants": (opaque_constant, r"data/constants/opaque_obj_0: an opaque object"),
    "an expression as a symbolic size": (
        symbolic_size,
        r"models/model\.json: symbolic size .*calls something other than arithmetic",
    ),
    "an expression as a shape guard": (shape_guard, "guard .*attribute mkdir"),
    "a whole state dict as a pickle": (whole_state_dict, r"data/weights/model\.pt: a pickle that would import"),
}


def onnx_model(*, listed_initializer: bool = False) -> onnx.ModelProto:
    """``y = x w``: x [n, 3], w [3, 2]."""
    weight = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2), "w")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])]
    if listed_initializer:
        inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 2]))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def external(path: Path, location: str) -> None:
    """Write ``onnx_model`` with its weight said to be in the file ``location``, which is not written."""
    model = onnx_model()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "24")):
        weight.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
