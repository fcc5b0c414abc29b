"""A gate's outcome as Markdown: a job's summary, a comment on a merge request."""

from __future__ import annotations

from edgeopt.bundle.gate import GateResult
from edgeopt.report.escape import markdown_table, markdown_text
from edgeopt.report.gate_words import figure_words, headline_words, limit_words, subject_words

__all__ = ["gate_markdown"]

_MARKS = {"PASS": "✅ PASS", "FAIL": "❌ FAIL", "INCONCLUSIVE": "❔ INCONCLUSIVE"}


def gate_markdown(result: GateResult) -> str:
    """Headline, a row per limit, what was compared, and what to know; nothing from outside is taken as markup."""
    rows = [
        (
            markdown_text(limit_words(row)),
            markdown_text(figure_words(row)),
            _MARKS[row.status],
            markdown_text(row.message),
        )
        for row in result.rows
    ]
    subjects = [result.bundle, *([result.baseline] if result.baseline is not None else [])]
    lines = [subject_words(subject) for subject in subjects]
    blocks = [
        f"## {_MARKS[result.status].split()[0]} {markdown_text(headline_words(result))}",
        markdown_table(("Limit", "Figure", "Verdict", "Why"), rows),
        "\n".join(f"- {markdown_text(line)}" for line in (*lines, *result.notes)),
        "\\[low, high\\]: 95 % interval. Judged by edgeopt " + markdown_text(result.edgeopt_version) + ".",
    ]
    return "\n\n".join(blocks) + "\n"
