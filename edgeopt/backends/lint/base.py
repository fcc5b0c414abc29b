"""What a rule is: a stable id, what breaking it does, why, what to do, and who says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from edgeopt.backends.base import Finding

if TYPE_CHECKING:
    import onnx

    from edgeopt.backends.lint.facts import Facts
    from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["Checker", "Effect", "Rule", "by_id", "node_name"]

Effect = Literal["refused", "wrong", "float", "slow", "accuracy", "portable"]
"""What breaking a rule does.

``refused``: the runtime does not take the graph. ``wrong``: it computes something else. ``float``: a quantized layer
runs in float. ``slow``: it works, slower. ``accuracy``: it works, and quantization costs more than it must.
``portable``: it works here and not everywhere.
"""
_SEVERITIES: Mapping[Effect, Literal["error", "warning", "note"]] = {
    "refused": "error",
    "wrong": "error",
    "float": "warning",
    "slow": "warning",
    "accuracy": "warning",
    "portable": "note",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that a runtime does.

    Attributes:
        id: Stable, e.g. ``TRT001``; never given to another rule.
        effect: What breaking it does, see ``Effect``.
        title: What it finds, in one line.
        why: What the runtime does, in one sentence.
        fix: What to do, in one sentence.
        source: The document's title and section, or the experiment that showed it.
        level: Another severity than the effect's own: where the effect depends on what the graph does not tell.
    """

    id: str
    effect: Effect
    title: str
    why: str
    fix: str
    source: str
    level: Literal["error", "warning", "note"] | None = None

    @property
    def severity(self) -> Literal["error", "warning", "note"]:
        """``error``, ``warning`` or ``note``."""
        return self.level or _SEVERITIES[self.effect]

    def at(self, node: onnx.NodeProto | str | None, why: str = "", fix: str = "") -> Finding:
        """The rule broken at ``node``; ``why`` and ``fix`` say it for this place, where that is more than the rule's."""
        name = node if node is None or isinstance(node, str) else node_name(node)
        return Finding(
            severity=self.severity,
            rule=self.id,
            node=name,
            message=why or self.why,
            fix=fix or self.fix,
            source=self.source,
        )


class Checker(Protocol):
    """What a runtime's file provides as ``check``."""

    def __call__(self, facts: Facts, target: Target | None, rules: RuntimeRules) -> Iterator[Finding]:
        """Everything that the file's rules find."""
        ...


def by_id(*rules: Rule) -> dict[str, Rule]:
    """The rules by id.

    Raises:
        ValueError: Two have one id.
    """
    made = {rule.id: rule for rule in rules}
    if len(made) < len(rules):
        raise ValueError("two rules have one id")
    return made


def node_name(node: onnx.NodeProto) -> str:
    """A node's name; where it has none, its first output's."""
    return node.name or (node.output[0] if node.output else node.op_type)
