"""Hostile archives: each is refused by name, and nothing of it runs. Where torch itself runs it, a test shows that."""

from __future__ import annotations

import contextlib
import json
import shutil
import zipfile

import pytest
import torch
from hostile import ARCHIVES, Payload, saved, touch

from edgeopt.core.errors import ModelError, UnsafeModelError
from edgeopt.model.load import load_model
from edgeopt.model.scan import scan_archive


def refused(path, marker, match) -> None:
    with pytest.raises(UnsafeModelError, match=match):
        load_model(path)
    with pytest.raises(UnsafeModelError, match=match):
        scan_archive(path)
    assert not marker.exists()


def torch_runs(path, marker) -> None:
    """The payload is a real one: plain torch executes it. Without this the refusals above would prove little."""
    with contextlib.suppress(Exception):  # what torch says afterwards does not matter
        torch.export.load(path).module()(torch.zeros(1, 20))
    assert marker.exists()


@pytest.mark.parametrize("form", ARCHIVES)
def test_what_torch_itself_would_execute(tampered, marker, form):
    make, match = ARCHIVES[form]
    path = tampered(make(marker))
    refused(path, marker, match)
    torch_runs(path, marker)


class TestTheOtherForms:
    @pytest.mark.parametrize("target", ["torch.os.mkdir", "torch.serialization.os.mkdir"])
    def test_node_that_calls_the_system(self, with_program, marker, target):
        def edit(program):
            argument = {"name": "", "arg": {"as_string": str(marker)}, "kind": 1}
            node = {
                "target": target,
                "inputs": [argument],
                "outputs": [],
                "metadata": {},
                "is_hop_single_tensor_return": None,
                "name": "run",
            }
            program["graph_module"]["graph"]["nodes"].insert(0, node)

        path = with_program(edit)
        refused(path, marker, "it calls '.*mkdir', which is no tensor operator")

    @pytest.mark.parametrize(
        ("target", "why"),
        [
            ("torch.ops.load_library", "no tensor operator"),
            ("torch.ops.aten.from_file.default", "reads or writes files"),
            ("torch.ops.evil.run.default", "torch itself does not have"),
            ("torch.ops.aten.add.__class__", "no tensor operator"),
            ("torch.ops.higher_order.call_torchbind", "no tensor operator"),
            ("_operator.attrgetter", "no tensor operator"),
            ("#extension:run", "no tensor operator"),
            (7, "is not text"),
        ],
    )
    def test_target_outside_the_tensor_operators(self, with_program, marker, target, why):
        path = with_program(lambda p: p["graph_module"]["graph"]["nodes"][0].update(target=target))
        refused(path, marker, why)

    def test_name_that_is_python_source(self, with_program, marker):
        evil = f"x=({touch(marker)})"

        def edit(program):
            text = json.dumps(program).replace('"name": "x"', f'"name": {json.dumps(evil)}')
            text = text.replace('"x": {"dtype"', f'{json.dumps(evil)}: {{"dtype"')
            program.update(json.loads(text))

        path = with_program(edit)
        refused(path, marker, "is no identifier, and torch would write it into Python source")

    def test_argument_name_that_is_python_source(self, with_program, marker):
        def edit(program):
            entry = program["graph_module"]["module_call_graph"][0]
            entry["signature"]["forward_arg_names"] = [f"x=({touch(marker)})"]

        path = with_program(edit)
        refused(path, marker, "the argument .* is no identifier")

    def test_weight_name_that_leaves_its_quotes(self, with_program, marker):
        def edit(program):
            for spec in program["graph_module"]["signature"]["input_specs"]:
                if "parameter" in spec:
                    spec["parameter"]["parameter_name"] = f'a"+{touch(marker)}+"'

        refused(with_program(edit), marker, "has characters that torch would write into Python source")

    def test_native_library(self, tampered, marker):
        path = tampered(lambda m: m.update({"data/aotinductor/model/evil.so": b"\x7fELF"}))
        refused(path, marker, r"data/aotinductor/model/evil\.so: native code")

    def test_torchbind_object(self, tampered, marker):
        path = tampered(lambda m: m.update({"data/constants/custom_obj_0": b"x"}))
        refused(path, marker, "custom_obj_0: a TorchBind object")

    @pytest.mark.parametrize(
        ("kind", "context"),
        [
            ("collections.defaultdict", {"default_factory_module": "antigravity", "default_factory_name": "x"}),
            ("builtins.dict", json.dumps([{"__enum__": True, "fqn": "antigravity:X", "name": "A"}])),
            ("my.Class", "null"),
        ],
    )
    def test_tree_spec_that_imports(self, with_program, marker, kind, context):
        def edit(program):
            spec = {"type": kind, "context": context, "children_spec": []}
            program["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps([1, spec])

        refused(with_program(edit), marker, "a tree spec")

    def test_range_of_a_symbol_that_is_none(self, with_program, marker):
        path = with_program(lambda p: p["range_constraints"].update({"u99999999999": {"min_val": 0, "max_val": 1}}))
        refused(path, marker, "the range of 'u99999999999', which is no size")


class TestTheZip:
    def test_one_name_twice(self, archive, tmp_path, marker):
        path = tmp_path / "twice.pt2"
        shutil.copy(archive, path)
        with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("model/models/model.json", b"{}")
        refused(path, marker, "twice")

    @pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "C:/evil"])
    def test_name_outside_the_archive(self, archive, marker, name):
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr(name, b"")
        refused(archive, marker, "points outside the archive")

    def test_bomb(self, archive, marker):
        with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
            file.writestr("model/extra/zeros", bytes(60_000_000))
        refused(archive, marker, "zip bomb")

    def test_empty_record_of_a_huge_tensor(self, tampered):
        def edit(members):
            name = "data/weights/model_weights_config.json"
            config = json.loads(members[name])
            entry = next(iter(config["config"].values()))
            entry["tensor_meta"]["sizes"] = [{"as_int": 10**13}]
            members[name] = json.dumps(config).encode()
            members[f"data/weights/{entry['path_name']}"] = b""

        with pytest.raises(ModelError, match="holds no values"):
            load_model(tampered(edit))

    def test_damaged_weight(self, archive):
        content = bytearray(archive.read_bytes())
        with zipfile.ZipFile(archive) as file:
            info = next(i for i in file.infolist() if i.filename.endswith("weight_0"))
        content[info.header_offset + 200] ^= 0xFF
        archive.write_bytes(content)
        with pytest.raises(ModelError, match=r"weight_0' cannot be read: Bad CRC"):
            load_model(archive)

    def test_missing_weight(self, tampered):
        with pytest.raises(ModelError, match="lacks the values of"):
            load_model(tampered(lambda m: m.pop("data/weights/weight_0")))

    def test_program_that_is_not_json(self, tampered):
        with pytest.raises(ModelError, match="is not JSON"):
            load_model(tampered(lambda m: m.update({"models/model.json": b"{"})))

    def test_program_of_another_schema(self, with_program):
        with pytest.raises(ModelError, match="description of the program is malformed"):
            load_model(with_program(lambda p: p.pop("graph_module")))

    def test_no_program(self, tampered):
        with pytest.raises(ModelError, match="holds no program named 'model'"):
            load_model(tampered(lambda m: m.pop("models/model.json")))


def test_trust_lets_an_archive_through_that_the_scan_refuses(tampered, marker):
    path = tampered(lambda m: m.update({"data/sample_inputs/model.pt": saved(((Payload(marker),), {}))}))
    with pytest.raises(UnsafeModelError, match="--trust-model"):
        load_model(path)
    model = load_model(path, trust=True)
    assert marker.exists()
    assert model.inputs[0].shape == ("batch", 20)


def test_what_is_refused_lists_every_member(tampered, marker):
    def edit(members):
        members["data/constants/custom_obj_0"] = b"x"
        members["data/aotinductor/model/a.so"] = b"x"

    refused(tampered(edit), marker, r"custom_obj_0: .*; data/aotinductor/model/a\.so: ")
