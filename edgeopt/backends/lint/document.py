"""What a lint found, as a document: what ``edgeopt lint --json`` prints."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

__all__ = ["AppliedFix", "FixReport", "LintResult", "LintRow", "RuleRow"]

Severity = Literal["error", "warning", "note"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RuleRow(_Frozen):
    """One rule of one runtime; fields as ``backends.lint.Rule`` has them."""

    runtime: str
    rule: str
    severity: Severity
    effect: str
    title: str
    why: str
    fix: str
    source: str


class LintRow(_Frozen):
    """One finding.

    Attributes:
        node: The node, input or tensor; null where the whole graph is meant.
        message: What happens there, and why.
        fix: What to do.
        source: The document's title and section, or the experiment that showed it.
    """

    runtime: str
    rule: str
    severity: Severity
    title: str
    node: str | None
    message: str
    fix: str
    source: str


class AppliedFix(_Frozen):
    """A rewrite that was applied and verified.

    Attributes:
        name: What was done.
        rules: The rules whose findings it took away.
        gone: How many findings are gone.
        verified: On what, and how close the outputs are.
    """

    name: str
    rules: tuple[str, ...]
    gone: int
    verified: str


class FixReport(_Frozen):
    """What ``--fix`` did.

    Attributes:
        output: The file that was written; null where nothing could be fixed.
        applied: In the order in which the rewrites were applied.
        refused: What was tried and taken back, each with the reason.
    """

    output: str | None
    applied: tuple[AppliedFix, ...]
    refused: tuple[str, ...]


class LintResult(_Frozen):
    """Everything that the rules of a target's runtimes find in one graph.

    Attributes:
        model: The file or bundle as it was given.
        graph: What was looked at: the file, or the form that a bundle's graph is compiled in.
        findings: Per runtime, errors first.
        fix: What ``--fix`` did; ``findings`` are then those of the written file.
    """

    schema_version: Literal[1] = 1
    edgeopt_version: str
    model: str
    graph: str
    target: str
    runtimes: tuple[str, ...]
    opset: int
    nodes: int
    findings: tuple[LintRow, ...]
    fix: FixReport | None = None

    def count(self, severity: Severity) -> int:
        """How many findings are of a severity."""
        return sum(1 for row in self.findings if row.severity == severity)

    def exit_code(self, *, strict: bool = False) -> int:
        """4 where there is an error, or with ``strict`` a warning; else 0."""
        return 4 if self.count("error") or (strict and self.count("warning")) else 0
