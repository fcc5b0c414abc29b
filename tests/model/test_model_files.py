"""Files as they are found: what they are, ONNX, and a loaded model stored for the next run."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hostile import external, onnx_model
from model_nets import TwoInputs, seeded

from edgeopt.core.errors import ModelError, UnsafeModelError
from edgeopt.core.spec import parse_input
from edgeopt.model.identity import identify
from edgeopt.model.load import load_model
from edgeopt.model.reference import reference_outputs
from edgeopt.model.sniff import sniff
from edgeopt.model.store import load_program, load_stored, save_model


class TestSniff:
    def test_every_form_by_its_content(self, tmp_path, archive, mlp):
        torch.save(mlp.state_dict(), tmp_path / "a.bin")
        torch.save(mlp, tmp_path / "b.bin")
        torch.save(mlp.state_dict(), tmp_path / "c.bin", _use_new_zipfile_serialization=False)
        torch.save(mlp, tmp_path / "d.bin", _use_new_zipfile_serialization=False)
        torch.jit.save(torch.jit.trace(mlp, torch.randn(1, 20)), tmp_path / "e.bin")
        onnx.save(onnx_model(), tmp_path / "f.bin")
        found = {name: sniff(tmp_path / f"{name}.bin") for name in "abcdef"}
        assert found == {
            "a": "state-dict",
            "b": "pickle",
            "c": "state-dict",
            "d": "pickle",
            "e": "torchscript",
            "f": "onnx",
        }
        assert sniff(archive) == "pt2"

    @pytest.mark.parametrize("form", ["zip", "onnx", "pickle"])
    def test_a_truncated_file(self, tmp_path, archive, mlp, form):
        path = tmp_path / "whole"
        if form == "zip":
            path = archive
        elif form == "onnx":
            onnx.save(onnx_model(), path)
        else:
            torch.save(mlp, path, _use_new_zipfile_serialization=False)
        content = path.read_bytes()
        for part in (40, len(content) // 2, len(content) - 30):
            path.write_bytes(content[:part])
            with pytest.raises(ModelError, match=r"cut short|not a model file|cannot be read"):
                load_model(path, inputs=[parse_input("x:float32[1,20]")], trust=True)

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            (b"", "empty"),
            (b"hello, world\n" * 20, "not a model file that edgeopt knows"),
            (b"\x89HDF\r\n\x1a\n" + bytes(90), "HDF5"),
            (b"\x1c\0\0\0TFL3" + bytes(90), "TensorFlow Lite"),
            (b"\x10\0\0\0\0\0\0\0" + b'{"w":{}}' + bytes(90), "safetensors"),
            (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
            (b"<!doctype html><html>", "web page"),
            (b"PK\x03\x04" + bytes(90), "cannot be read as one"),
            (b"\x80\x02\x8a", "begins like a pickle"),
        ],
    )
    def test_foreign_content(self, tmp_path, content, match):
        path = tmp_path / "model.pt"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=match):
            sniff(path)

    def test_a_foreign_zip(self, tmp_path):
        import zipfile

        with zipfile.ZipFile(tmp_path / "model.pt", "w") as file:
            file.writestr("a/readme.txt", "hello")
        with pytest.raises(ModelError, match="zip archive that torch did not write"):
            sniff(tmp_path / "model.pt")

    def test_a_missing_file_and_a_folder(self, tmp_path):
        with pytest.raises(ModelError, match="does not exist"):
            sniff(tmp_path / "nothing.pt")
        with pytest.raises(ModelError, match="is a folder"):
            sniff(tmp_path)


class TestOnnx:
    def test_it_is_described(self, tmp_path):
        onnx.save(onnx_model(listed_initializer=True), tmp_path / "m.onnx")
        model = load_model(tmp_path / "m.onnx")
        assert (model.format, model.program, model.onnx_path) == ("onnx", None, tmp_path / "m.onnx")
        assert [str(spec) for spec in (*model.inputs, *model.outputs)] == ["x:float32[n,3]", "y:float32[n,2]"]
        assert model.parameters == 6

    def test_external_data_beside_it_counts(self, tmp_path):
        external(tmp_path / "m.onnx", "w.bin")
        (tmp_path / "w.bin").write_bytes(bytes(24))
        first = load_model(tmp_path / "m.onnx")
        assert first.identity == identify(tmp_path / "m.onnx")
        (tmp_path / "w.bin").write_bytes(b"\1" * 24)
        assert load_model(tmp_path / "m.onnx").identity != first.identity

    @pytest.mark.parametrize(
        "location", ["../secret", "/etc/hostname", "a/../../secret", "..\\secret", "C:\\secret", ""]
    )
    def test_external_data_outside_its_folder_is_not_read(self, tmp_path, location):
        folder = tmp_path / "model"
        folder.mkdir()
        (tmp_path / "secret").write_bytes(bytes(24))
        external(folder / "m.onnx", location)
        with pytest.raises(UnsafeModelError, match="outside its own folder; it was not read"):
            load_model(folder / "m.onnx")

    def test_a_link_out_of_its_folder_is_not_followed(self, tmp_path):
        folder = tmp_path / "model"
        folder.mkdir()
        (tmp_path / "secret").write_bytes(bytes(24))
        (folder / "w.bin").symlink_to(tmp_path / "secret")
        external(folder / "m.onnx", "w.bin")
        with pytest.raises(UnsafeModelError, match="outside its own folder"):
            load_model(folder / "m.onnx")

    def test_missing_external_data(self, tmp_path):
        external(tmp_path / "m.onnx", "w.bin")
        with pytest.raises(ModelError, match="in a file that is not there"):
            load_model(tmp_path / "m.onnx")

    def test_an_invalid_graph(self, tmp_path):
        model = onnx_model()
        model.graph.node[0].input[1] = "nowhere"
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match="not valid ONNX"):
            load_model(tmp_path / "m.onnx")

    def test_a_specification_that_is_not_the_models(self, tmp_path):
        onnx.save(onnx_model(), tmp_path / "m.onnx")
        with pytest.raises(ModelError, match=r"does not fit the model.*x:float32\[n,3\]"):
            load_model(tmp_path / "m.onnx", inputs=[parse_input("x:float32[1,4]")])


class TestStore:
    def test_a_stored_model_comes_back(self, tmp_path):
        net = seeded(TwoInputs)
        model = load_model(net, inputs=[parse_input("ids:int64[1,7]"), parse_input("features:float32[1,3]")])
        save_model(model, tmp_path / "stored")
        back = load_stored(tmp_path / "stored", with_program=True)
        for field in dataclasses.fields(model):
            if field.name != "program":
                assert getattr(back, field.name) == getattr(model, field.name)
        ids, features = np.ones((3, 7), np.int64), np.ones((3, 3), np.float32)
        for got, expected in zip(
            reference_outputs(back.program, [ids, features]),
            reference_outputs(model.program, [ids, features]),
            strict=True,
        ):
            np.testing.assert_array_equal(got, expected)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
    def test_a_full_disk_is_an_error_where_torch_itself_would_abort(self, tmp_path, archive):
        (tmp_path / "stored").mkdir()
        (tmp_path / "stored" / "program.pt2").symlink_to("/dev/full")
        with pytest.raises(OSError, match="No space left"):
            save_model(load_model(archive), tmp_path / "stored")

    def test_an_onnx_model_is_stored_with_its_data(self, tmp_path):
        external(tmp_path / "m.onnx", "w.bin")
        (tmp_path / "w.bin").write_bytes(bytes(24))
        model = load_model(tmp_path / "m.onnx")
        save_model(model, tmp_path / "stored")
        back = load_stored(tmp_path / "stored", with_program=True)
        assert back.onnx_path == tmp_path / "stored" / "onnx" / "m.onnx"
        assert load_model(back.onnx_path).identity == model.identity

    def test_the_users_examples_are_not_stored(self, tmp_path, mlp):
        program = torch.export.export(mlp, (torch.randn(10_000, 20)[:2],))
        save_model(load_model(program), tmp_path / "stored")
        assert (tmp_path / "stored" / "program.pt2").stat().st_size < 60_000

    def test_a_changed_program_is_not_loaded(self, tmp_path, archive):
        save_model(load_model(archive), tmp_path / "stored")
        with (tmp_path / "stored" / "program.pt2").open("ab") as file:
            file.write(b"x")
        with pytest.raises(ModelError, match="missing or was changed"):
            load_program(tmp_path / "stored")

    def test_each_caller_gets_a_program_of_its_own(self, tmp_path, mlp):
        program = torch.export.export(mlp, (torch.randn(2, 20),), dynamic_shapes=({0: torch.export.Dim("batch")},))
        save_model(load_model(program), tmp_path / "stored")
        first, second = load_program(tmp_path / "stored"), load_program(tmp_path / "stored")
        assert [n.name for n in first.graph.nodes] == [n.name for n in second.graph.nodes]
        expected = reference_outputs(second, [np.ones((3, 20), np.float32)])
        for tensor in first.state_dict.values():
            tensor.data.zero_()
        first.graph.erase_node(first.graph.output_node())
        for again in (second, load_program(tmp_path / "stored")):
            np.testing.assert_array_equal(reference_outputs(again, [np.ones((3, 20), np.float32)]), expected)

    def test_a_folder_that_is_no_stored_model(self, tmp_path, archive):
        with pytest.raises(ModelError, match="not a stored model"):
            load_stored(tmp_path, with_program=False)
        save_model(load_model(archive), tmp_path / "stored")
        facts = tmp_path / "stored" / "model.json"
        facts.write_text(json.dumps({**json.loads(facts.read_text()), "version": 0}))
        with pytest.raises(ModelError, match="another version of edgeopt"):
            load_stored(tmp_path / "stored", with_program=False)

    def test_identity_and_facts_need_no_torch(self, tmp_path, archive):
        model = load_model(archive)
        save_model(model, tmp_path / "stored")
        code = (
            "import sys; from pathlib import Path\n"
            "from edgeopt.model.identity import identify\n"
            "from edgeopt.model.store import load_stored\n"
            f"print(identify(Path({str(archive)!r})))\n"
            f"print(load_stored(Path({str(tmp_path / 'stored')!r}), with_program=False).inputs[0])\n"
            "print('torch' in sys.modules)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert done.stdout.split() == [model.identity, "x:float32[batch,20]", "False"]

    def test_identity_follows_the_bytes_and_the_inputs_not_the_name(self, tmp_path, archive):
        first = identify(archive)
        assert identify(archive.rename(tmp_path / "other.pt")) == first
        assert identify(tmp_path / "other.pt", inputs=[parse_input("x:float32[1,20]")]) != first

    def test_identity_of_a_factory_is_not_known_before_it_ran(self, tmp_path, mlp):
        torch.save(mlp.state_dict(), tmp_path / "w.pt")
        assert identify(tmp_path / "w.pt", factory="model_nets:make_mlp") is None
