"""What the real runtimes do with a graph: the judges of the lint's corpus.

Each judge says whether the runtime refuses the graph (and in which words), whether its outputs are what ONNX's reference
evaluator computes, and which of the layers whose weights are stored as integers an integer kernel serves. Layers are
recognized by their stored weight, whose initializer is ``NAME_w_int`` in the corpus, not by what a runtime calls them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

_ORT_INT8 = {"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "ConvInteger", "MatMulInteger"}
_OV_WEIGHTED = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}


@dataclass(frozen=True)
class Judgement:
    """``refused``: the runtime's words, or None. ``wrong``: how far outputs are off, relative to their reach."""

    refused: str | None = None
    wrong: float = 0.0
    in_float: frozenset[str] = frozenset()


def layers_of(model):
    """The layers with stored integer weights: node name by node name."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return {node.name for node in model.graph.node if f"{node.name}_w_int" in stored}


def inputs_of(model, batch=1, seed=0):
    rng = np.random.default_rng(seed)
    made = {}
    for value in model.graph.input:
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = [dim.dim_value or batch for dim in value.type.tensor_type.shape.dim]
        floats = kind.kind == "f"
        made[value.name] = (rng.normal(size=shape) * 2 if floats else rng.integers(0, 7, shape)).astype(kind)
    return made


def reference(model, inputs):
    """What ONNX says the graph computes; None where its evaluator cannot."""
    with np.errstate(all="ignore"):
        try:
            return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, inputs)]
        except Exception:  # noqa: BLE001 - a type, a domain or an opset that the evaluator has not
            return None


def distance(expected, actual):
    """The largest difference over the outputs' reach; infinite where one has NaN and the other has not."""
    worst = 0.0
    for want, got in zip(expected, actual, strict=True):
        if want.dtype.kind not in "fiu":
            continue
        a, b = want.astype(np.float64), np.asarray(got).astype(np.float64)
        if a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return np.inf
        if not np.isfinite(b).all():
            return np.inf
        a, b = np.nan_to_num(a), np.nan_to_num(b)
        worst = max(worst, float(np.abs(a - b).max(initial=0)) / max(1e-6, float(np.abs(a).max(initial=0))))
    return worst


def judge_onnxruntime(model, folder):
    import onnxruntime as ort

    ort.set_default_logger_severity(4)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    inputs = inputs_of(model)
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        outputs = session.run(None, inputs)
    except Exception as error:  # noqa: BLE001 - every kind of refusal counts
        return Judgement(refused=str(error).splitlines()[0])
    made = onnx.load(folder / "optimized.onnx").graph.node
    served = {name for node in made if node.op_type in _ORT_INT8 for name in node.input}
    floats = {
        name
        for name in layers_of(model)
        if not any(read.startswith((f"{name}_w_int", f"{name}_w_scale")) for read in served)
    }
    expected = reference(model, inputs)
    wrong = 0.0 if expected is None else distance(expected, outputs)
    return Judgement(wrong=wrong, in_float=frozenset(floats))


def judge_openvino(model, folder, *, batch=1):
    """Compiled at a static shape from the file as it is; ``batch`` None leaves a dynamic one.

    edgeopt's own backend folds what it reads, by which two of the rules' cases come out well: a deconvolution whose input is
    uint8 with zero point 128 runs in int8, and a float weight that is shared both ways is computed rightly.
    """
    from edgeopt.agent.runners.openvino import compile_properties, import_openvino

    ov = import_openvino()
    path = folder / "model.onnx"
    onnx.save(model, path)
    inputs = inputs_of(model)
    try:
        core = ov.Core()
        read = core.read_model(str(path))
        if batch is not None and any(port.get_partial_shape().is_dynamic for port in read.inputs):
            read.reshape({port.any_name: list(inputs[port.any_name].shape) for port in read.inputs})
        compiled = core.compile_model(read, "CPU", compile_properties({}, 1))
        results = compiled(inputs)
    except Exception as error:  # noqa: BLE001 - every kind of refusal counts
        return Judgement(refused=str(error).strip().splitlines()[-1] or "refused")
    outputs = [results[index] for index in range(len(model.graph.output))]
    int8, weighted = set(), layers_of(model)
    for op in compiled.get_runtime_model().get_ops():
        info = {key: str(getattr(value, "value", value)) for key, value in op.get_rt_info().items()}
        if info.get("layerType") in _OV_WEIGHTED and info.get("runtimePrecision") in ("i8", "u8"):
            names = [op.get_friendly_name(), *info.get("originalLayersNames", "").split(",")]
            int8 |= {name.split("/")[0] for name in names}
    expected = reference(model, inputs)
    wrong = 0.0 if expected is None else distance(expected, outputs)
    return Judgement(wrong=wrong, in_float=frozenset(weighted - int8))


def judge_tensorrt_rtx(models):
    """Every model parsed and built ahead of time in one process of its own: TensorRT cannot be trusted not to crash.

    Returns:
        Name → judgement. What TensorRT computes is not run: there is no GPU.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for each, model in models.items():
            onnx.save(model, folder / f"{each}.onnx")
        said = {}
        left = sorted(models)
        while left:
            command = [sys.executable, "-P", "-W", "ignore", __file__, str(folder), *left]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
            said |= {line["name"]: line for line in lines}
            left = [each for each in left if each not in said]
            if done.returncode and left:  # the first that is missing is the one that crashed
                said[left[0]] = {"error": f"crashed: {done.stderr.strip().splitlines()[-1:]}", "int8": []}
                left = left[1:]
    return {
        each: Judgement(
            refused=said[each]["error"],
            in_float=frozenset() if said[each]["error"] else frozenset(layers_of(model) - set(said[each]["int8"])),
        )
        for each, model in models.items()
    }


def _serve(folder, names):
    """The process of ``judge_tensorrt_rtx``: one JSON line per model."""
    import tensorrt_rtx as trt

    from edgeopt.agent.runners import engine_passport

    sys.modules["engine_passport"] = engine_passport  # on the device it lies beside the script
    from edgeopt.backends.on_device import build_engine as script

    for name in names:
        arguments = ["--onnx", str(Path(folder) / f"{name}.onnx"), "--ahead-of-time", "86"]
        args = script.parse_arguments([*arguments, "--max-batch", "8"])
        logger = script.make_logger(trt)
        builder = trt.Builder(logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, logger)
        error, int8 = None, []
        if not parser.parse_from_file(args.onnx):
            error = " ".join((script.parser_errors(parser) or logger.errors)[:1])
        else:
            try:
                config = script.make_config(trt, builder, network, args)
                if builder.build_serialized_network(network, config) is None:
                    error = " ".join(logger.errors[:1]) or "not built"
                else:
                    kernels = script.kernels_in(logger.layers)
                    int8 = sorted({node for kernel in kernels if kernel["int8"] for node in kernel["onnx"]})
            except script.BuildError as refused:
                error = str(refused)
        sys.stdout.write(json.dumps({"name": name, "error": error, "int8": int8}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2:])


def judge_backend(model, folder, name, rules, target):
    """A runtime that is reached through edgeopt's backend: compiled, its coverage read back, and run."""
    from edgeopt.backends.registry import BACKENDS
    from edgeopt.core.errors import BackendError

    path = Path(folder) / "judged.onnx"
    onnx.save(model, path)
    into = Path(folder) / "engine"
    into.mkdir()
    inputs = inputs_of(model)
    backend = BACKENDS[name]
    try:
        engine = backend.compile(path, target, rules, into, 1)
        with backend.load(engine, 1) as runner:
            made = runner.infer(inputs)
    except BackendError as error:
        return Judgement(refused=str(error))
    expected = reference(model, inputs)
    outputs = [made[value.name] for value in model.graph.output]
    ops = engine.coverage.ops if engine.coverage else ()
    return Judgement(
        wrong=0.0 if expected is None else max(map(distance, expected, outputs)),
        in_float=frozenset(op.node for op in ops if op.runs_in != "int8") & layers_of(model),
    )
