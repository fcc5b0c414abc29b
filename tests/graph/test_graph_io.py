"""ONNX files are read safely and written whole."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from edgeopt.core.errors import GraphError
from edgeopt.graph.facts import graph_facts
from edgeopt.graph.io import check_onnx, graph_files, load_onnx, save_onnx


def write_external(folder, location, *, length=16):
    """A model whose only weight lies at ``location``."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        weight.external_data.add(key=key, value=value)
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", tensors[:1], tensors[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    folder.mkdir(exist_ok=True)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def test_external_data_beside_the_file_is_read(tmp_path):
    path = write_external(tmp_path / "model", "w.bin")
    (path.parent / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    model = load_onnx(path)
    np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), [0, 1, 2, 3])


@pytest.mark.parametrize("location", ["../secret.bin", "sub/../../secret.bin"])
def test_external_data_outside_the_folder_is_refused(tmp_path, location):
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    with pytest.raises(GraphError, match="outside the model's folder"):
        load_onnx(write_external(tmp_path / "model", location))


def test_external_data_at_an_absolute_path_is_refused(tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    with pytest.raises(GraphError, match="outside the model's folder"):
        load_onnx(write_external(tmp_path / "model", str(tmp_path / "secret.bin")))


def test_a_link_out_of_the_folder_is_followed_and_refused(tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    path = write_external(tmp_path / "model", "w.bin")
    (path.parent / "w.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(GraphError, match="outside the model's folder"):
        load_onnx(path)


@pytest.mark.parametrize("content", [None, bytes(15)])
def test_external_data_that_is_absent_or_short_is_refused(tmp_path, content):
    path = write_external(tmp_path / "model", "w.bin")
    if content is not None:
        (path.parent / "w.bin").write_bytes(content)
    with pytest.raises(GraphError, match="missing or too short"):
        load_onnx(path)


@pytest.mark.parametrize("content", [b"not onnx at all", b""])
def test_a_file_that_is_not_onnx_is_refused(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(GraphError, match=r"not a readable ONNX model|has no graph"):
        load_onnx(tmp_path / "m.onnx")


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(GraphError, match="no ONNX file"):
        load_onnx(tmp_path / "m.onnx")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(case, tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    save_onnx(load_onnx(case("mlp").float_path), path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    with pytest.raises(GraphError, match=r"cannot be written.*No space left"):
        save_onnx(load_onnx(case("mlp").int8_path), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_reading_and_writing_again_keeps_the_bytes(case, tmp_path):
    path = case("vit").int8_path
    save_onnx(load_onnx(path), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == path.read_bytes()


def test_the_checker_sees_types_that_do_not_fit(tmp_path):
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[2] x) => (int64[2] y) { y = Relu(x) }'
    )
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(GraphError, match="not valid ONNX"):
        check_onnx(tmp_path / "m.onnx")


def test_metadata_of_nodes_survives(case, tmp_path):
    model = load_onnx(case("mlp").float_path)
    next(iter(model.graph)).metadata_props["edgeopt.range"] = "0.0 1.0"
    save_onnx(model, tmp_path / "m.onnx")
    assert next(iter(ir.load(tmp_path / "m.onnx").graph)).metadata_props["edgeopt.range"] == "0.0 1.0"


def test_the_files_of_a_model_are_the_graph_and_its_tensors_alone(case, tmp_path, monkeypatch):
    monkeypatch.setattr("edgeopt.graph.io._PROTOBUF_LIMIT", 100)
    path = tmp_path / "model.onnx"
    save_onnx(load_onnx(case("mlp").int8_path), path)
    (tmp_path / "model.json").write_text("{}")
    (tmp_path / "other.0.data").write_text("")
    files = graph_files(path)
    assert [file.suffix for file in files] == [".onnx", ".data"]
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in files:
        (copy / file.name).write_bytes(file.read_bytes())
    assert graph_facts(copy / "model.onnx") == graph_facts(case("mlp").int8_path)
