"""A bundle with more in its report than when it was shipped."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgeopt.bundle.document import Report
from edgeopt.bundle.layout import REPORT_JSON
from edgeopt.bundle.load import Bundle, load_bundle
from edgeopt.bundle.write import write_bundle
from edgeopt.report.write import write_report

__all__ = ["with_report"]


def with_report(bundle: Bundle, report: Report) -> Bundle:
    """The same bundle with another report; it is replaced whole or not at all.

    Raises:
        BundleError: It cannot be written.
    """

    def fill(folder: Path) -> None:
        for name in bundle.manifest.files:
            if not name.startswith(REPORT_JSON.partition(".")[0] + "."):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle.directory / name, folder / name)
        write_report(report, folder)

    return load_bundle(write_bundle(bundle.directory, fill, lambda _: bundle.manifest))
