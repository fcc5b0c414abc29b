"""A torch program to an ``.mlpackage`` that is the same bytes each time, its inputs and outputs named as in the graph."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from edgeopt.backends.support import wrap
from edgeopt.backends.torch_program.build import TorchProgram
from edgeopt.core.errors import BackendError

__all__ = ["MODEL", "WEIGHTS", "write_package"]

_ITEMS = "com.apple.CoreML"
MODEL = f"Data/{_ITEMS}/model.mlmodel"
WEIGHTS = f"Data/{_ITEMS}/weights/weight.bin"
_LEFT_OUT = ("common::distributive_quantized_binary_op_scale_normalization",)
"""Graph passes of coremltools that put other scales in the place of the graph's."""
_DATED = "com.github.apple.coremltools.conversion_date"


def write_package(program: TorchProgram, features: Mapping[str, str], minimum: str, destination: Path) -> None:
    """Convert, and write the package anew without what differs from run to run.

    coremltools gives the items of a package random identifiers, dates it, and adds a map for ExecuTorch's debugger.

    Args:
        features: The graph's input and output names → the package's.
        minimum: A member of ``coremltools.target``.

    Raises:
        BackendError: coremltools refused the program; its own words are in the message.
    """
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        made = Path(folder) / "made.mlpackage"
        _convert(program, minimum, made)
        _normalize(made, program, features, destination)


def _convert(program: TorchProgram, minimum: str, path: Path) -> None:
    try:
        import coremltools as ct  # noqa: PLC0415

        from edgeopt.backends.coreml_half import float16_parameters, teach_float16  # noqa: PLC0415

        teach_float16()
        logging.getLogger("coremltools").setLevel(logging.ERROR)
        pipeline = ct.PassPipeline()
        pipeline.remove_passes(_LEFT_OUT)
        with float16_parameters():
            model = ct.convert(
                program.exported.run_decompositions({}),
                convert_to="mlprogram",
                minimum_deployment_target=getattr(ct.target, minimum),
                compute_precision=ct.precision.FLOAT32,  # no casts beyond the graph's own: those are its float16
                pass_pipeline=pipeline,
                skip_model_load=True,
            )
        model.save(str(path))
    except BackendError:
        raise
    except Exception as error:
        raise wrap("coremltools cannot convert the graph.", error) from error


def _normalize(made: Path, program: TorchProgram, features: Mapping[str, str], destination: Path) -> None:
    from coremltools.proto import Model_pb2  # noqa: PLC0415

    spec = Model_pb2.Model()
    spec.ParseFromString((made / MODEL).read_bytes())
    spec.description.metadata.userDefined.pop(_DATED, None)
    _rename(spec, [features[s.name] for s in program.plan.inputs], [features[s.name] for s in program.outputs])
    (destination / MODEL).parent.mkdir(parents=True)
    (destination / MODEL).write_bytes(spec.SerializeToString(deterministic=True))
    if (made / WEIGHTS).is_file():
        (destination / WEIGHTS).parent.mkdir(parents=True)
        shutil.copyfile(made / WEIGHTS, destination / WEIGHTS)
    (destination / "Manifest.json").write_text(_manifest(weights=(made / WEIGHTS).is_file()), encoding="utf-8")


def _manifest(*, weights: bool) -> str:
    """The package's list of items, their identifiers made from their names."""
    items = {"model.mlmodel": "CoreML Model Specification"} | ({"weights": "CoreML Model Weights"} if weights else {})
    ids = {name: str(uuid5(NAMESPACE_URL, f"{_ITEMS}/{name}")) for name in items}
    entries = {
        ids[name]: {"author": _ITEMS, "description": what, "name": name, "path": f"{_ITEMS}/{name}"}
        for name, what in items.items()
    }
    document = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": entries,
        "rootModelIdentifier": ids["model.mlmodel"],
    }
    return json.dumps(document, indent=4) + "\n"


def _rename(spec: Any, inputs: list[str], outputs: list[str]) -> None:
    """Give the features the graph's names, in its order; whatever else has such a name gets another."""
    given, made = spec.description.input, spec.description.output
    if len(given) != len(inputs) or len(made) != len(outputs):
        raise BackendError(
            "coremltools dropped an input or output of the graph.",
            got=f"{len(given)} inputs and {len(made)} outputs",
            fix=f"The graph has {len(inputs)} and {len(outputs)}; export the model without those that do nothing.",
        )
    _separate(spec)
    wanted = dict(zip([f.name for f in given], inputs, strict=True))
    wanted |= dict(zip([f.name for f in made], outputs, strict=True))
    held = {reference.name for reference in _names(spec)}
    taken = held | set(wanted.values())
    for name in sorted(held & set(wanted.values()) - set(wanted)):
        wanted[name] = next(new for n in range(len(taken) + 1) if (new := f"{name}_inner_{n}") not in taken)
        taken.add(wanted[name])
    for reference in _names(spec):
        reference.name = wanted.get(reference.name, reference.name)
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            block.outputs[:] = [wanted.get(name, name) for name in block.outputs]
    for feature in (*given, *made):
        feature.name = wanted[feature.name]


def _separate(spec: Any) -> None:
    """Give every output a value of its own: coremltools hands an input that is returned, or a value that is twice."""
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    types = {value.name: value.type for value in spec.mlProgram.functions["main"].inputs}
    types |= {value.name: value.type for operation in block.operations for value in operation.outputs}
    seen = {feature.name for feature in spec.description.input}
    for index, feature in enumerate(spec.description.output):
        if feature.name in seen:
            source, feature.name = feature.name, f"{feature.name}_output_{index}"
            block.outputs[index] = feature.name
            copy = block.operations.add(type="identity")
            copy.inputs["x"].arguments.add(name=source)
            copy.outputs.add(name=feature.name).type.CopyFrom(types[source])
        seen.add(feature.name)


def _names(spec: Any) -> Iterator[Any]:
    """Everything in the program that has a value's name. The nets that edgeopt writes have no nested blocks."""
    for function in spec.mlProgram.functions.values():
        yield from function.inputs
        for block in function.block_specializations.values():
            for operation in block.operations:
                yield from operation.outputs
                for argument in operation.inputs.values():
                    yield from (each for each in argument.arguments if each.WhichOneof("binding") == "name")
