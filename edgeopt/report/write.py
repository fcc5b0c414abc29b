"""The report's three files, as a bundle holds them."""

from __future__ import annotations

from pathlib import Path

from edgeopt.bundle.document import Report
from edgeopt.bundle.layout import REPORT_HTML, REPORT_JSON, REPORT_MARKDOWN, report_json
from edgeopt.report.html import to_html
from edgeopt.report.markdown import to_markdown

__all__ = ["write_report"]


def write_report(report: Report, directory: Path) -> None:
    """Write ``report.json``, ``report.md`` and ``report.html`` into the folder of a bundle that is being filled.

    Raises:
        BundleError: A figure is NaN or infinite.
    """
    contents = {REPORT_JSON: report_json(report), REPORT_MARKDOWN: to_markdown(report), REPORT_HTML: to_html(report)}
    for name, content in contents.items():
        (directory / name).write_text(content, encoding="utf-8")
