"""Take away what a lint found, by rewrites that are verified: the outputs agree, and the finding is gone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.backends.graphs import read_graph
from edgeopt.backends.lint.document import AppliedFix, FixReport, LintResult, LintRow
from edgeopt.core.errors import DataError, EdgeOptError, GraphError
from edgeopt.pipeline.host import run_onnx
from edgeopt.pipeline.lint import find_runtimes, lint_graph, lint_model
from edgeopt.targets.load import find_target
from edgeopt.targets.schema import RuntimeRules, Target

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["fix_model"]

_SAMPLES = 8
_SAME = 1e-5
"""How far, relative to their reach, outputs may be where a rewrite keeps every number: the order of a sum may differ."""
_ENOUGH_DB = 30.0
"""How close outputs must be where a grid became finer or a weight moved by a step, as SQNR."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rewrite:
    """One way to take findings away.

    Attributes:
        rules: What it is for.
        exact: Whether it keeps every number; else outputs are close.
        run: Writes the rewritten graph: source, destination, the runtime's rules.
    """

    name: str
    rules: frozenset[str]
    exact: bool
    run: Callable[[Path, Path, RuntimeRules], None]


def fix_model(
    model: Path,
    output: Path,
    *,
    target: str | Path,
    runtime: str | None = None,
    inputs: Path | None = None,
    seed: int = 0,
) -> LintResult:
    """Write ``model`` to ``output`` with what can be fixed for one runtime fixed.

    Args:
        model: An ONNX file; it is never written to.
        output: Where to write; it may not be the model itself.
        target: A name, an alias or a YAML file.
        runtime: Needed where the target has several: forms that suit one runtime do not suit another.
        inputs: An ``.npz`` of inputs by name, to verify on beside random ones.
        seed: Of the random inputs.

    Returns:
        The lint of what was written (of ``model``, where nothing could be fixed), with ``fix`` filled in.

    Raises:
        EdgeOptError: As ``lint_model``; or ``output`` is the model, or cannot be written, or the inputs do not fit.
    """
    described = find_target(target)
    found = find_runtimes(described, runtime)
    if len(found) > 1:
        names = ", ".join(rules.name for rules in found)
        raise EdgeOptError("A graph is fixed for one runtime at a time.", got=names, fix="Name one with --runtime.")
    _check_places(model, output)
    before = lint_model(model, target=target, runtime=found[0].name)
    if any(row.rule.startswith(("GEN001", "GEN002", "GEN003")) for row in before.findings):
        report = FixReport(output=None, applied=(), refused=("The graph is not valid, so nothing was tried.",))
        return before.model_copy(update={"fix": report})
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        fixer = _Fixer(described, found[0], Path(folder), _samples(model, inputs, seed))
        current = fixer.fix(model)
        if fixer.applied:
            from edgeopt.graph.io import load_onnx, save_checked

            save_checked(load_onnx(current), output)
    report = FixReport(
        output=str(output) if fixer.applied else None, applied=tuple(fixer.applied), refused=tuple(fixer.refused)
    )
    after = lint_model(output, target=target, runtime=found[0].name) if fixer.applied else before
    return after.model_copy(update={"model": str(model), "fix": report})


class _Fixer:
    """Rewrites in turn, each kept only where it helps and the outputs agree."""

    def __init__(self, target: Target, rules: RuntimeRules, folder: Path, samples: Mapping[str, np.ndarray]) -> None:
        self.target, self.rules, self.folder, self.samples = target, rules, folder, samples
        self.applied: list[AppliedFix] = []
        self.refused: list[str] = []

    def fix(self, model: Path) -> Path:
        """The path of the graph after the last rewrite that was kept."""
        from edgeopt.graph.io import load_onnx, save_onnx

        current = self.folder / "given.onnx"
        save_onnx(load_onnx(model), current)  # the external data comes along
        findings = self._lint(current)
        for index, rewrite in enumerate(_rewrites(self.rules)):
            if not rewrite.rules & _rules(findings):
                continue
            candidate = self.folder / f"{index}.onnx"
            try:
                rewrite.run(current, candidate, self.rules)
                left = self._lint(candidate)
                verified = self._verified(current, candidate, rewrite)
            except EdgeOptError as error:
                self.refused.append(f"{rewrite.name}: {error}")
                continue
            gone = _gone(findings, left, rewrite.rules)
            new = _rules(left, "error") - _rules(findings, "error")
            if not gone or new:
                why = f"it would bring {', '.join(sorted(new))}" if new else "the findings stay"
                self.refused.append(f"{rewrite.name}: {why}.")
                continue
            fixed = tuple(sorted(rewrite.rules & _rules(findings)))
            self.applied.append(AppliedFix(name=rewrite.name, rules=fixed, gone=gone, verified=verified))
            current, findings = candidate, left
        return current

    def _lint(self, path: Path) -> list[LintRow]:
        return lint_graph(read_graph(path), self.target, self.rules)

    def _verified(self, before: Path, after: Path, rewrite: _Rewrite) -> str:
        """How close the outputs are.

        Raises:
            GraphError: They are not close enough.
        """
        from edgeopt.graph.parity import sqnr_db

        expected, actual = run_onnx(before, self.samples), run_onnx(after, self.samples)
        worst, level = 0.0, np.inf
        for name, want in expected.items():
            got = actual[name]
            if want.shape != got.shape:
                raise GraphError("An output has another shape afterwards.", got=f"{name}: {got.shape}")
            reach = max(float(np.abs(want).max(initial=0)), 1e-6)
            worst = max(worst, float(np.abs(want.astype(np.float64) - got).max(initial=0)) / reach)
            level = min(level, sqnr_db(want, got) or np.inf)
        count = len(next(iter(self.samples.values())))
        if (rewrite.exact and worst > _SAME) or (not rewrite.exact and level < _ENOUGH_DB):
            raise GraphError("The outputs do not agree.", got=f"SQNR {level:.1f} dB on {count} inputs")
        how = "identical" if worst == 0 else f"largest difference {worst:.1e} of their reach, SQNR {level:.0f} dB"
        return f"{count} inputs, outputs {how}"


def _rewrites(rules: RuntimeRules) -> list[_Rewrite]:
    """All of them, in the order in which they are tried: what keeps every number first."""
    float_forms = ("ORT002", "ORT003", "ORT004", "ORT005", "ORT006", "ORT009", "ORT011", "ORT012", "ORTM001", "TPR004")
    return [
        _Rewrite(
            name="store biases as float",
            rules=frozenset({"TRT004", "ORT007"}),
            exact=True,
            run=_passes("float_bias:FloatBias"),
        ),
        _Rewrite(
            name="write uint8 around 128 as int8 around 0",
            rules=frozenset({"TRT001", "TRT002"} if rules.name == "tensorrt" else {"TPR004"}),
            exact=True,
            run=_passes("symmetric_points:SymmetricPoints"),
        ),
        _Rewrite(
            name="give every weight its own zero point",
            rules=frozenset({"OV003", "ORT005"}),
            exact=True,
            run=_passes("own_zero_points:OwnZeroPoints"),
        ),
        _Rewrite(
            name=f"convert to opset {rules.opset_max}",
            rules=frozenset({"TRT010", "ORT001", "OV001"}),
            exact=True,
            run=_convert,
        ),
        _Rewrite(
            name="write Flatten as Reshape",
            rules=frozenset({"ORT012"}),
            exact=True,
            run=_passes("flatten_as_reshape:FlattenAsReshape"),
        ),
        _Rewrite(
            name="clamp weights to [-127, 127]",
            rules=frozenset({"ORT020", "GEN009", "LRT005"}),
            exact=False,
            run=_passes("clamp_weights:ClampWeights"),
        ),
        _Rewrite(
            name=f"write the graph in the dialect {rules.dialect}",
            rules=frozenset(float_forms),
            exact=False,
            run=_dialect,
        ),
        _Rewrite(
            name="store biases as int32",
            rules=frozenset({"ORTM001", "ORT011"}),
            exact=False,
            run=_passes("quantize_bias:QuantizeBias"),
        ),
    ]


def _passes(*names: str) -> Callable[[Path, Path, RuntimeRules], None]:
    def run(source: Path, destination: Path, rules: RuntimeRules) -> None:  # noqa: ARG001
        from importlib import import_module

        from edgeopt.graph.io import load_onnx, save_checked
        from edgeopt.graph.passes.base import run_passes

        model: ir.Model = load_onnx(source)
        for name in names:
            module, _, kind = name.partition(":")
            run_passes(model, [getattr(import_module(f"edgeopt.graph.passes.{module}"), kind)()])
        save_checked(model, destination)

    return run


def _dialect(source: Path, destination: Path, rules: RuntimeRules) -> None:
    from edgeopt.graph.dialects import apply_dialect

    apply_dialect(rules.dialect, source, destination)


def _convert(source: Path, destination: Path, rules: RuntimeRules) -> None:
    import onnx

    try:
        converted = onnx.version_converter.convert_version(onnx.load(source), rules.opset_max)
        onnx.checker.check_model(converted, full_check=True)
    except Exception as error:
        said = str(error).strip().splitlines()
        raise GraphError(
            f"ONNX's converter cannot write the graph at opset {rules.opset_max}.", got=said[0][:300] if said else error
        ) from error
    onnx.save(converted, destination)


def _check_places(model: Path, output: Path) -> None:
    if model.is_dir():
        raise EdgeOptError("--fix takes an ONNX file, not a bundle.", got=model, fix="Compile the model again instead.")
    if output.exists() and model.exists() and output.samefile(model):
        raise EdgeOptError("--fix never overwrites its input.", got=output, fix="Give another file.")
    if output.is_dir() or not output.parent.is_dir():
        raise EdgeOptError(
            "The fixed model cannot be written there.", got=output, fix="Give a file in a folder that is there."
        )


def _samples(model: Path, inputs: Path | None, seed: int) -> dict[str, np.ndarray]:
    """Random inputs in several magnitudes, and the given ones behind them: one array [N, …] per input."""
    rng = np.random.default_rng(seed)
    specs = read_graph(model).inputs
    given = _given(inputs, {spec.name for spec in specs})
    if not specs or any(not spec.shape for spec in specs):
        raise GraphError("A graph without inputs, or with a scalar one, cannot be verified here.", got=model.name)
    made: dict[str, np.ndarray] = {}
    for spec in specs:
        shape = (_SAMPLES, *(dim if isinstance(dim, int) else 8 for dim in spec.shape[1:]))
        if np.dtype(spec.dtype).kind == "f":
            scales = np.geomspace(0.25, 8, _SAMPLES).reshape(-1, *([1] * (len(shape) - 1)))
            made[spec.name] = (rng.normal(size=shape) * scales).astype(spec.dtype)
        else:
            made[spec.name] = rng.integers(0, 2, shape).astype(spec.dtype)
        if given:
            extra = given[spec.name]
            if extra.shape[1:] != shape[1:] and all(isinstance(dim, int) for dim in spec.shape[1:]):
                raise DataError(
                    f"The given input {spec.name!r} does not fit.", got=extra.shape, fix=f"Expected {spec}."
                )
            made[spec.name] = np.concatenate([made[spec.name], extra.astype(spec.dtype)])
    return made


def _given(inputs: Path | None, names: Collection[str]) -> dict[str, np.ndarray]:
    if inputs is None:
        return {}
    try:
        with np.load(inputs, allow_pickle=False) as archive:
            given = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise DataError("The inputs are not a readable .npz file.", got=f"{inputs} ({error})") from error
    missing = sorted(set(names) - set(given))
    if missing:
        raise DataError("Inputs are missing.", got=", ".join(sorted(given)), fix=f"Add {', '.join(missing)}.")
    return given


def _rules(rows: Collection[LintRow], severity: str | None = None) -> set[str]:
    return {row.rule for row in rows if severity in (None, row.severity)}


def _gone(before: Collection[LintRow], after: Collection[LintRow], rules: Collection[str]) -> int:
    """How many findings of ``rules`` are no more; of all rules together there must not be more errors and warnings."""

    def count(rows: Collection[LintRow], only: Collection[str] | None) -> int:
        return sum(1 for row in rows if (row.rule in only if only is not None else row.severity != "note"))

    gone = count(before, rules) - count(after, rules)
    return gone if gone > 0 and count(after, None) <= count(before, None) else 0
