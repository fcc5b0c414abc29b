"""What is kept of a bundle so that later ones can be held against it: figures and outcomes, no engine."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeopt.bundle.document import DeviceInfo
from edgeopt.bundle.layout import first_problem, read_json
from edgeopt.bundle.load import Bundle, load_bundle, verify_files
from edgeopt.bundle.manifest import Contract, DataRecord, ModelRecord
from edgeopt.bundle.outcomes import OUTCOMES, Outcomes, read_outcomes
from edgeopt.core.errors import BundleError, EdgeOptError
from edgeopt.core.fingerprint import hash_file
from edgeopt.core.measurement import Measurement

__all__ = ["BASELINE", "BASELINE_VERSION", "Baseline", "Recorded", "read_baseline", "read_recorded"]

BASELINE = "baseline.json"
BASELINE_VERSION: Literal[1] = 1


class Baseline(BaseModel):
    """What ``baseline.json`` holds.

    Attributes:
        created: When it was saved; ``bundle_created``: when its bundle was compiled; ISO 8601, UTC.
        measurements: Of the shipped engine, as its report has them.
        latency_ms: The raw samples in the order they were taken, ``latency_block`` to a block.
        outcomes_sha256: Of ``outcomes.npz`` beside it; None where the bundle had none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["edgeopt-baseline"] = "edgeopt-baseline"
    schema_version: Literal[1] = BASELINE_VERSION
    name: str
    edgeopt_version: str
    created: str
    bundle_created: str
    versions: dict[str, str]
    model: ModelRecord
    target: str
    recipe: str
    runtime: str
    runtime_version: str
    precision: str
    contract: Contract
    data: DataRecord | None
    device: DeviceInfo
    measurements: tuple[Measurement, ...]
    latency_ms: tuple[float, ...] = ()
    latency_block: int | None = Field(default=None, ge=1)
    outcomes_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")

    def figure(self, name: str) -> Measurement | None:
        """The first measurement of that name, or None."""
        return next((m for m in self.measurements if m.name == name), None)

    @property
    def samples(self) -> int | None:
        """Of the test split; None where there was no data."""
        return next((split.samples for split in self.data.splits if split.name == "test"), None) if self.data else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A bundle or a baseline, as what was recorded of it.

    Attributes:
        directory: Where it is.
        bundle: The bundle itself, where it is one: its engine can be run again.
        outcomes: None where there are none.
    """

    document: Baseline
    directory: Path
    bundle: Bundle | None
    outcomes: Outcomes | None


def read_recorded(path: Path) -> Recorded:
    """A bundle, every file of it checked against its hash first.

    Raises:
        BundleError: It is no bundle, or a file is not as it was written.
    """
    bundle = load_bundle(path, complete=False)
    problems = verify_files(bundle)
    if problems:
        raise BundleError(
            "The bundle is not as it was written, so nothing is judged by it.",
            got="; ".join(str(problem) for problem in problems[:5]) + ("; …" if len(problems) > 5 else ""),
            fix="Copy the bundle again, whole, or compile the model again.",
        )
    has_outcomes = OUTCOMES in bundle.manifest.files
    return Recorded(
        document=_document_of(bundle, hash_file(bundle.directory / OUTCOMES) if has_outcomes else None),
        directory=bundle.directory,
        bundle=bundle,
        outcomes=read_outcomes(bundle.directory / OUTCOMES) if has_outcomes else None,
    )


def read_baseline(folder: Path) -> Recorded:
    """A baseline's folder.

    Raises:
        BundleError: There is none, it was made by another schema version, is malformed, or its outcomes were changed.
    """
    path = folder / BASELINE
    document = read_json(path, "baseline.json")
    _refuse_others(document, path)
    try:
        baseline = Baseline.model_validate(document)
    except (ValidationError, EdgeOptError) as error:
        raise BundleError("The baseline is malformed.", got=f"{path}: {first_problem(error)}", fix=_AGAIN) from error
    outcomes = None
    if baseline.outcomes_sha256 is not None:
        file = folder / OUTCOMES
        if not file.is_file() or hash_file(file) != baseline.outcomes_sha256:
            found = "another content (sha256)" if file.is_file() else "no such file"
            raise BundleError(
                "The baseline's outcomes are not those that were saved.", got=f"{file}: {found}", fix=_AGAIN
            )
        outcomes = read_outcomes(file)
    return Recorded(document=baseline, directory=folder, bundle=None, outcomes=outcomes)


_AGAIN = "Save the baseline again with `edgeopt baseline save BUNDLE`."


def _refuse_others(document: dict[str, Any], path: Path) -> None:
    if document.get("kind") != "edgeopt-baseline":
        raise BundleError("This is not an edgeopt baseline.", got=f"{path} (another kind of document)", fix=_AGAIN)
    version = document.get("schema_version")
    if version != BASELINE_VERSION:
        raise BundleError(
            f"The baseline has another schema version; this edgeopt reads {BASELINE_VERSION}.",
            got=f"{version} in {path}, written by edgeopt {document.get('edgeopt_version', 'of unknown version')}",
            fix=f"{_AGAIN} A newer edgeopt reads what a newer one wrote.",
        )


def _document_of(bundle: Bundle, outcomes_sha256: str | None) -> Baseline:
    manifest, report = bundle.manifest, bundle.report
    shipped = report.shipped
    p50 = shipped.figure("latency_p50_ms")
    block = p50.conditions.get("block") if p50 is not None else None
    return Baseline(
        name=bundle.directory.name,
        edgeopt_version=manifest.edgeopt_version,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        bundle_created=manifest.created,
        versions=manifest.versions,
        model=manifest.model,
        target=manifest.target,
        recipe=manifest.recipe,
        runtime=manifest.runtime,
        runtime_version=manifest.runtime_version,
        precision=manifest.precision,
        contract=manifest.contract,
        data=manifest.data,
        device=report.device,
        measurements=shipped.measurements,
        latency_ms=shipped.latency_ms,
        latency_block=block if isinstance(block, int) else None,
        outcomes_sha256=outcomes_sha256,
    )
