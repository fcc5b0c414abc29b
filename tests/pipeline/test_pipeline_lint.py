"""A file or a bundle is linted for a target; what is fixed is verified, and the input is never written to."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from edgeopt.backends.graphs import read_graph
from edgeopt.backends.lint import lint
from edgeopt.backends.lint.document import LintResult
from edgeopt.cli.lint import lint as command
from edgeopt.core.errors import BackendError, BundleError, DataError, EdgeOptError, ModelError, TargetError
from edgeopt.pipeline.host import run_onnx
from edgeopt.pipeline.lint import lint_model, list_rules
from edgeopt.pipeline.lint_fix import fix_model
from edgeopt.report.lint_sarif import lint_sarif

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS / "backends"))
from lint_corpus import CASES  # noqa: E402

SARIF = json.loads((TESTS / "gate" / "sarif-2.1.0.schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def graph(tmp_path):
    """A graph of the corpus as a file."""

    def write(name) -> Path:
        path = tmp_path / f"{name}.onnx"
        onnx.save(CASES[name](), path)
        return path

    return write


def call(*arguments):
    done = CliRunner().invoke(command, [str(a) for a in arguments], standalone_mode=False)
    if isinstance(done.exception, EdgeOptError):
        raise done.exception
    return done


def rules(result):
    return {row.rule for row in result.findings}


class TestWhatIsLinted:
    def test_a_file_is_looked_at_as_it_stands_for_each_runtime_of_the_target(self, graph):
        result = lint_model(graph("conv_uint8_axis_1"), target="local")
        assert result.runtimes == ("onnxruntime", "openvino")
        assert {(row.runtime, row.rule) for row in result.findings} >= {("openvino", "OV008")}
        assert result.graph == "as it stands"

    def test_one_runtime_can_be_asked_alone(self, graph):
        result = lint_model(graph("conv_uint8_axis_1"), target="openvino", runtime="openvino")
        assert {row.runtime for row in result.findings} == {"openvino"}

    def test_a_bundles_graph_is_looked_at_as_it_is_compiled(self, tmp_path, graph, monkeypatch):
        bundle = tmp_path / "bundle"
        bundle.mkdir()
        (bundle / "model.onnx").write_bytes(graph("residual_symmetric_skip").read_bytes())
        monkeypatch.setattr("edgeopt.pipeline.lint.load_bundle", lambda path: type("Bundle", (), {"directory": path})())
        assert "ORT004" in rules(lint_model(bundle / "model.onnx", target="x86"))
        compiled = lint_model(bundle, target="x86")
        assert "ORT004" not in rules(compiled)
        assert compiled.graph == "as compiled"

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"target": "jetsn"}, TargetError, r"no target.*'jetsn'.*nearest first: jetson"),
            (
                {"target": "jetson", "runtime": "openvino"},
                TargetError,
                r"not have this runtime.*It has tensorrt.*local",
            ),
        ],
    )
    def test_a_target_or_runtime_that_is_not_there_gets_the_nearest(self, arguments, error, message, graph):
        with pytest.raises(error, match=message):
            lint_model(graph("conv_float"), **arguments)

    def test_what_is_no_model_is_refused(self, tmp_path, graph):
        whole = graph("conv_float").read_bytes()
        cases = {"words.onnx": b"only words", "empty.onnx": b"", "half.onnx": whole[: len(whole) // 2]}
        for name, content in cases.items():
            (tmp_path / name).write_bytes(content)
            with pytest.raises(BackendError, match=r"not an ONNX model|truncated"):
                lint_model(tmp_path / name, target="jetson")
        with pytest.raises(ModelError, match="no file or folder"):
            lint_model(tmp_path / "none.onnx", target="jetson")
        with pytest.raises(BundleError, match=r"folder without manifest\.json"):
            lint_model(tmp_path, target="jetson")


def test_what_may_saturate_is_held_to_the_proof(graph, tmp_path):
    (row,) = lint_model(graph("conv_uint8_wide_weights"), target="x86-avx2").findings
    assert row.rule == "ORT019"
    assert "of its 8 channels can: a pair reaches" in row.message
    model = CASES["conv_uint8"]()
    (stored,) = [tensor for tensor in model.graph.initializer if tensor.name == "conv_w_int"]
    weight = np.zeros((8, 8, 3, 3), "int8")
    weight[:, 0, 0, 0] = 100  # beyond 64, and alone: no pair of products reaches 16 bits
    stored.CopyFrom(onnx.numpy_helper.from_array(weight, "conv_w_int"))
    onnx.save(model, tmp_path / "safe.onnx")
    assert lint_model(tmp_path / "safe.onnx", target="x86-avx2").findings == ()


class TestTheCommand:
    def test_exit_codes_tell_errors_from_warnings(self, graph):
        assert call(graph("conv_float"), "-t", "x86").return_value == 0
        warned = graph("conv_uint8_hard_swish")
        assert call(warned, "-t", "x86").return_value == 0
        assert call(warned, "-t", "x86", "--strict").return_value == 4
        assert call(graph("conv_uint8"), "-t", "jetson").return_value == 4

    def test_the_text_groups_by_rule_and_says_why_what_to_do_and_who_says_so(self, graph):
        text = call(graph("residual_uint8"), "-t", "jetson").output
        assert text.count("error TRT001") == 1
        assert "and 5 more: dq, zq_q" in text
        for word in ("fix: Write it as int8", "source: NVIDIA TensorRT documentation", "nothing was run"):
            assert word in text

    def test_json_is_the_document(self, graph):
        result = LintResult.model_validate_json(call(graph("conv_uint8"), "-t", "jetson", "--json").output)
        assert rules(result) == {"TRT001", "TRT002", "TRT004"}
        assert all(row.fix and row.source and row.title for row in result.findings)

    def test_sarif_is_valid_and_names_node_and_level(self, graph):
        text = call(graph("conv_uint8_wide_weights"), "-t", "x86-avx2", "-f", "sarif").output
        jsonschema.Draft7Validator(SARIF).validate(json.loads(text))
        (run,) = json.loads(text)["runs"]
        (found,) = run["results"]
        assert (found["ruleId"], found["level"]) == ("ORT019", "warning")
        assert found["locations"][0]["logicalLocations"][0]["name"] == "conv"
        assert run["tool"]["driver"]["rules"][found["ruleIndex"]]["id"] == "ORT019"

    def test_a_relative_path_is_a_uri_below_the_root_and_a_clean_graph_has_no_results(self, graph, monkeypatch):
        path = graph("conv_float")
        monkeypatch.chdir(path.parent)
        (run,) = json.loads(lint_sarif(lint_model(Path(path.name), target="x86")))["runs"]
        assert run["results"] == []
        dirty = lint_model(Path(path.name), target="x86").model_copy(
            update={"findings": lint_model(graph("op_det"), target="jetson").findings}
        )
        (run,) = json.loads(lint_sarif(dirty))["runs"]
        artifact = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
        assert artifact == {"uri": "conv_float.onnx", "uriBaseId": "%SRCROOT%"}

    def test_the_outcome_can_go_to_a_file(self, graph, tmp_path):
        call(graph("conv_uint8"), "-t", "jetson", "-o", tmp_path / "lint.txt")
        assert "error TRT001" in (tmp_path / "lint.txt").read_text()
        with pytest.raises(EdgeOptError, match="cannot be written"):
            call(graph("conv_uint8"), "-t", "jetson", "-o", tmp_path / "none" / "lint.txt")

    def test_rules_are_listed_for_a_target_and_for_all(self):
        text = call("--rules", "-t", "jetson").output
        assert "TRT001" in text
        assert "OV001" not in text
        listed = json.loads(call("--rules", "--json").output)
        assert {row["runtime"] for row in listed} == {
            "onnxruntime",
            "openvino",
            "ort-mobile",
            "tensorrt",
            "litert",
            "executorch",
            "coreml",
        }
        with pytest.raises(EdgeOptError, match=r"no rules for a runtime.*'tensort'.*Known: tensorrt"):
            list_rules(runtime="tensort")

    def test_a_model_and_a_target_are_needed(self, graph):
        for arguments in ([], [graph("conv_float")], ["-t", "jetson"]):
            assert "Give MODEL and --target" in str(call(*arguments).exception)
        assert "text or JSON" in str(call("--rules", "-f", "sarif").exception)


def outputs(path, seed=5):
    shape = [8, *(dim for dim in read_graph(path).inputs[0].shape[1:])]
    data = np.random.default_rng(seed).normal(size=shape).astype("float32")
    (value,) = run_onnx(path, {"x": data}).values()
    return value


class TestFix:
    # Graph, target, runtime, what was there, what stays, and how close the outputs are on inputs of the test's own.
    CASES = (
        ("shared_zero_point", "openvino", None, "OV003", set(), 0),
        ("gemm_uint8_no_zero", "x86", None, "ORT005", set(), 0),
        ("conv_symmetric_int32_bias", "jetson", None, "TRT004", set(), 1e-5),
        ("conv_uint8_bias_on_other_step", "x86", None, "ORT007", {"ORT011"}, 1e-5),
        ("attention_uint8", "jetson", None, "TRT001", set(), 1e-5),
        ("op_opset_23", "jetson", None, "TRT010", set(), 0),
        ("conv_uint8_flatten", "x86", None, "ORT012", set(), 1e-5),
        ("residual_symmetric_skip", "local", "onnxruntime", "ORT004", {"ORT003"}, 0.03),
        ("conv_uint8_float_bias", "android", None, "ORTM001", {"ORT011"}, 0.01),
        ("conv_symmetric_minus_128", "rpi4", None, "ORT020", {"ORT011"}, 0.03),
    )

    @pytest.mark.parametrize(("name", "target", "runtime", "rule", "stays", "close"), CASES)
    def test_a_finding_goes_and_the_outputs_agree(self, name, target, runtime, rule, stays, close, graph, tmp_path):
        path, out = graph(name), tmp_path / "fixed.onnx"
        before = path.read_bytes()
        assert rule in rules(lint_model(path, target=target, runtime=runtime))
        result = fix_model(path, out, target=target, runtime=runtime)
        assert result.fix.output == str(out)
        assert any(rule in applied.rules for applied in result.fix.applied)
        assert {row.rule for row in result.findings if row.severity != "note"} <= stays
        assert path.read_bytes() == before
        onnx.checker.check_model(str(out), full_check=True)
        if name != "attention_uint8":  # two inputs: verified by the command itself
            want, got = outputs(path), outputs(out)
            assert np.abs(want - got).max() <= close * np.abs(want).max()

    def test_the_written_file_is_what_was_judged(self, graph, tmp_path):
        result = fix_model(graph("conv_uint8_flatten"), tmp_path / "f.onnx", target="x86")
        assert rules(lint_model(tmp_path / "f.onnx", target="x86")) == rules(result)

    def test_what_cannot_be_fixed_is_said_and_no_file_is_written(self, graph, tmp_path):
        result = fix_model(graph("op_det"), tmp_path / "f.onnx", target="jetson")
        assert result.fix.output is None
        assert rules(result) == {"TRT012"}
        assert not (tmp_path / "f.onnx").exists()
        result = fix_model(graph("op_unknown"), tmp_path / "f.onnx", target="jetson")
        assert result.fix.refused == ("The graph is not valid, so nothing was tried.",)

    def test_a_rewrite_that_takes_nothing_away_is_said(self, graph, tmp_path):
        result = fix_model(graph("conv_uint8_relu_unabsorbed"), tmp_path / "f.onnx", target="x86")
        assert result.fix.output is None
        assert any("the findings stay" in reason for reason in result.fix.refused)

    def test_a_rewrite_whose_outputs_differ_is_taken_back(self, graph, tmp_path, monkeypatch):
        monkeypatch.setattr("edgeopt.pipeline.lint_fix._ENOUGH_DB", 1e3)
        result = fix_model(graph("conv_symmetric_minus_128"), tmp_path / "f.onnx", target="rpi4")
        assert any("clamp" in reason and "do not agree" in reason for reason in result.fix.refused)
        assert "ORT020" in rules(result)

    def test_given_inputs_are_verified_on_too(self, graph, tmp_path):
        path = graph("conv_uint8_flatten")
        np.savez(tmp_path / "in.npz", x=np.ones((3, 8, 8, 8), "float32"))
        result = fix_model(path, tmp_path / "f.onnx", target="x86", inputs=tmp_path / "in.npz")
        assert result.fix.applied[0].verified.startswith("11 inputs")
        np.savez(tmp_path / "other.npz", z=np.ones(3))
        with pytest.raises(DataError, match=r"Inputs are missing.*Add x"):
            fix_model(path, tmp_path / "f.onnx", target="x86", inputs=tmp_path / "other.npz")
        np.savez(tmp_path / "small.npz", x=np.ones((3, 8, 2, 2), "float32"))
        with pytest.raises(DataError, match="does not fit"):
            fix_model(path, tmp_path / "f.onnx", target="x86", inputs=tmp_path / "small.npz")
        (tmp_path / "words.npz").write_text("words")
        with pytest.raises(DataError, match=r"not a readable \.npz"):
            fix_model(path, tmp_path / "f.onnx", target="x86", inputs=tmp_path / "words.npz")

    def test_places_that_cannot_be_written_are_refused_before_any_work(self, graph, tmp_path):
        path = graph("conv_uint8_flatten")
        with pytest.raises(EdgeOptError, match="never overwrites its input"):
            fix_model(path, path, target="x86")
        (tmp_path / "link.onnx").symlink_to(path)
        with pytest.raises(EdgeOptError, match="never overwrites its input"):
            fix_model(path, tmp_path / "link.onnx", target="x86")
        with pytest.raises(EdgeOptError, match="cannot be written there"):
            fix_model(path, tmp_path / "none" / "f.onnx", target="x86")
        with pytest.raises(EdgeOptError, match="not a bundle"):
            fix_model(tmp_path, tmp_path / "f.onnx", target="x86")
        with pytest.raises(EdgeOptError, match=r"one runtime at a time.*--runtime"):
            fix_model(path, tmp_path / "f.onnx", target="local")

    def test_the_command_fixes_and_says_how_it_was_verified(self, graph, tmp_path):
        done = call(graph("shared_zero_point"), "-t", "openvino", "--fix", tmp_path / "f.onnx")
        assert done.return_value == 0
        assert "outputs identical" in done.output
        assert (tmp_path / "f.onnx").is_file()


def test_a_graph_in_its_runtimes_dialect_has_no_warnings_left(graph, tmp_path):
    """What compile writes is what the rules ask for."""
    from edgeopt.graph.dialects import apply_dialect
    from edgeopt.targets.load import find_target

    for target in ("x86", "rpi5", "openvino", "jetson"):
        found = find_target(target)
        rule = found.runtimes[0]
        written = apply_dialect(rule.dialect, graph("depthwise_symmetric"), tmp_path / f"{target}.onnx")
        left = [f for f in lint(read_graph(written.path), rule, found) if f.severity != "note"]
        assert left == [], target
