"""What a device can do, as data: one YAML file per device, checked whole, frozen."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgeopt.targets.accelerators import Accelerator

__all__ = [
    "Isa",
    "Peaks",
    "Precision",
    "QuantizationRules",
    "Release",
    "RuntimeRules",
    "Source",
    "Target",
    "is_quantized",
]

Precision = Literal["fp32", "fp16", "bf16", "int8", "int8-fp16", "w4a8", "w8", "w4"]
"""What an artifact computes in.

``fp16``, ``bf16``: weights and activations of that type. ``int8-fp16``: int8 where layers are quantized, float16 in between.
``w4a8``: int8 arithmetic on weights stored in 4 bits. ``w8`` and ``w4``: weights stored in 8 or 4 bits, arithmetic in float.
"""
_FLOAT: frozenset[Precision] = frozenset({"fp32", "fp16", "bf16"})
OpKind = Literal["conv", "linear", "matmul", "conv_transpose", "add", "pool", "concat"]


def is_quantized(precision: Precision) -> bool:
    """Whether the graph of this precision holds Q/DQ, made by a quantize step."""
    return precision not in _FLOAT


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Frozen):
    """Where a fact of this file comes from: a document's title (and section), or the experiment that showed it."""

    fact: str
    source: str


class Isa(_Frozen):
    """The instruction set. Features are named as archspec spells them.

    A host stands in for the target only where the architecture is equal, all of ``requires`` and at least one of
    ``requires_any`` (where it has any) are there, and none of ``excludes`` is: a CPU with VNNI is no witness for one
    without.
    """

    arch: Literal["x86_64", "aarch64", "wasm32"]
    requires: tuple[str, ...] = ()
    requires_any: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()


class RuntimeRules(_Frozen):
    """One runtime that serves the target.

    Attributes:
        name: The backend's registry name: ``coreml``, ``executorch``, ``litert``, ``onnxruntime``, ``openvino``,
            ``ort-mobile``, ``tensorrt``.
        dialect: The graph dialect that keeps this runtime's int8 kernels, e.g. ``ort-x86``.
        forms: Further dialects, in order, for a model that loses accuracy on this runtime in ``dialect``.
        faster_forms: Further dialects that are faster for some models, from the most accurate on: where the target is the
            machine at hand, each is timed beside ``dialect`` and taken if it is faster and about as accurate.
        versions: The runtime's versions this file was written for, as a PEP 440 specifier.
        precisions: What this runtime runs to advantage on this target.
        opset_max: The newest ONNX opset that it reads.
        options: Session options the engine is compiled and run with.
    """

    name: str
    dialect: str
    forms: tuple[str, ...] = ()
    faster_forms: tuple[str, ...] = ()
    versions: str
    precisions: tuple[Precision, ...]
    opset_max: int
    options: dict[str, Any] = Field(default_factory=dict)


class QuantizationRules(_Frozen):
    """How this target's int8 must be laid out, whatever the algorithm.

    Attributes:
        weight_bits: 8; 7 where the CPU's u8×s8 pair sums saturate (x86 without VNNI) and how a runtime pairs them is not
            known.
        saturation: ``repair`` where they saturate and it is known: weights keep 8 bits, and only channels with a pair that
            could overflow get a wider step, by what that pair asks for. ``none``: nothing saturates.
        per_channel_weights: One scale per output channel (axis 0).
        asymmetric_activations: Whether an activation is quantized to uint8 where symmetric int8 would be used half: from zero
            on if it is never negative, by what the graph computes; with a zero point between if calibration sees little on
            one side. So ranges, techniques and training work on the points that the runtimes get. Without, it has a
            symmetric int8 grid, which a dialect may refine afterwards.
        symmetric_products: Whether what only linear layers read keeps a zero point of 0 all the same, for a runtime whose
            fast products of matrices have none.
        quantized_ops: Ops whose inputs are quantized; every other op stays in float. ``pool`` is a spatial average of
            what an int8 convolution (or addition) makes, or a max-pool where branches meet. ``concat``: all its inputs
            and its output on one grid.
        quantize_conv_outputs: Whether a quantized convolution's output is quantized even where no reader asks for it
            (an activation that the runtime does not absorb, a resize), because the runtime would else run it in float.
        quantize_linear_outputs: Likewise of a linear layer, for runtimes whose int8 products write int8 only; what the model
            returns stays in float.
        smallest_linear: A linear layer of fewer multiplications per sample, and of less than a hundredth of the model's,
            stays float: to quantize its input would take longer than its product. 0: none does.
        residual_add: Which inputs of a residual Add are quantized: ``none``; ``skip`` (the one that is not
            produced by a convolution, TensorRT's rule); ``both``. ``none`` exactly where ``quantized_ops`` has no ``add``.
    """

    weight_bits: Literal[7, 8] = 8
    saturation: Literal["none", "repair"] = "none"
    per_channel_weights: bool = True
    asymmetric_activations: bool = False
    symmetric_products: bool = False
    quantized_ops: tuple[OpKind, ...]
    quantize_conv_outputs: bool = False
    quantize_linear_outputs: bool = False
    smallest_linear: Annotated[int, Field(ge=0)] = 0
    residual_add: Literal["none", "skip", "both"]

    @model_validator(mode="after")
    def _check_add(self) -> Self:
        if ("add" in self.quantized_ops) == (self.residual_add == "none"):
            raise ValueError("residual_add is none exactly where quantized_ops has no add")
        return self

    @model_validator(mode="after")
    def _check_saturation(self) -> Self:
        if self.saturation == "repair" and self.weight_bits == 7:
            raise ValueError("saturation is repair only beside weight_bits 8: sums of 7-bit weights cannot saturate")
        return self


class Release(_Frozen):
    """One release of the device's system, which brings one version of each library.

    Attributes:
        l4t: The numbers of Jetson Linux that it goes by, as beginnings: ``36.4.3``; empty where they are not known.
        opset_max: The newest ONNX opset that its TensorRT's parser reads.
    """

    name: str
    l4t: tuple[str, ...] = ()
    tensorrt: str
    cuda: str
    opset_max: int


class Peaks(_Frozen):
    """The most that the device can do, measured on it: the two lines of a roofline (Williams et al. 2009).

    Attributes:
        gops_int8: 10⁹ int8 operations per second in a large matrix product; a multiply-accumulate counts as two.
        gflops_fp32: 10⁹ float32 operations per second, likewise.
        copy_gb_per_s: 10⁹ bytes per second in a copy of what is larger than most caches, read and written.
        threads: That it was measured with.
    """

    gops_int8: Annotated[float, Field(gt=0)] | None = None
    gflops_fp32: Annotated[float, Field(gt=0)]
    copy_gb_per_s: Annotated[float, Field(gt=0)]
    threads: Annotated[int, Field(ge=1)] = 1


class Target(_Frozen):
    """A device (or a class of devices) that artifacts are compiled for.

    Attributes:
        name: Its name; ``aliases`` are others for it. All names in the catalog are unique.
        runtimes: In order of preference; each yields candidates.
        quantization: Absent where the target has no int8.
        default_recipe: Used where the user names none and there is data; ``float_recipe`` where there is none.
        opset: The ONNX opset to export.
        compute_capability: CUDA SM number for TensorRT, e.g. 87.
        dla_cores: Deep learning accelerators beside the GPU that TensorRT can build for.
        release: Of its system, where it was named as ``target@release``.
        peaks: What it can do at most, where that was measured.
        detected: True for ``local``: what depends on the CPU is filled in from the machine at hand.
        identify: For one device rather than a class: texts of which one must be in the machine's own name of its
            model (``/proc/device-tree/model``) for it to be that device.
        accelerator: What its runtimes compute on where that is not the CPU or an NVIDIA GPU.
        system: The operating system that it runs; null where any will do (``darwin`` is macOS).
        device: Where its engines are run unless another place is named: ``local``, or ``browser``.
    """

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*(@[a-z0-9][a-z0-9.-]*)?$")]
    title: str
    aliases: tuple[str, ...] = ()
    description: str = ""
    isa: Isa
    cores: int | None = None
    memory_mib: int | None = None
    runtimes: tuple[RuntimeRules, ...] = Field(min_length=1)
    quantization: QuantizationRules | None = None
    default_recipe: str
    float_recipe: str
    opset: int = 20
    compute_capability: int | None = None
    channel_multiple: int = 1
    dla_cores: Annotated[int, Field(ge=0)] = 0
    release: Release | None = None
    peaks: Peaks | None = None
    detected: bool = False
    identify: tuple[str, ...] = ()
    accelerator: Accelerator | None = None
    system: Literal["linux", "android", "ios", "darwin"] | None = None
    device: Literal["local", "browser"] = "local"
    notes: tuple[str, ...] = ()
    sources: tuple[Source, ...] = Field(min_length=1)

    @property
    def has_sparse_tensor_cores(self) -> bool:
        """Whether its GPU multiplies 2:4 sparse weights faster: NVIDIA's have done so since Ampere, SM 8.0."""
        return self.compute_capability is not None and self.compute_capability >= 80

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Every precision that at least one runtime offers."""
        return tuple(dict.fromkeys(p for runtime in self.runtimes for p in runtime.precisions))

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if any(map(is_quantized, self.precisions)) != (self.quantization is not None):
            raise ValueError("quantization is there exactly where a runtime's precisions have int8 or lower")
        for runtime in self.runtimes:
            if self.opset > runtime.opset_max:
                raise ValueError(
                    f"opset {self.opset} is newer than {runtime.name} reads (opset_max {runtime.opset_max})"
                )
            _refuse_slow_arm(self.isa, runtime)
        if ("@" in self.name) != (self.release is not None):
            raise ValueError("a name has an @ exactly where a release is given: NAME@RELEASE")
        names = [runtime.name for runtime in self.runtimes]
        if len(set(names)) < len(names):
            raise ValueError(f"a runtime comes twice: {', '.join(names)}")
        return self


def _refuse_slow_arm(isa: Isa, runtime: RuntimeRules) -> None:
    """OpenVINO opens no int8 graph on Armv8.0: said when the target is read, before any work."""
    ints = [p for p in runtime.precisions if p in ("int8", "int8-fp16", "w4a8")]
    if runtime.name == "openvino" and isa.arch == "aarch64" and ints and "asimddp" not in isa.requires:
        raise ValueError(
            f"openvino runs no {' or '.join(ints)} on Armv8.0, which isa allows (Cortex-A53, Cortex-A72: it raises); add "
            "asimddp to isa.requires as a raspberry-pi-5 has it, leave that precision out, or use onnxruntime, as "
            "raspberry-pi-4 does"
        )
