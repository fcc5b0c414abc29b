"""What each technique brought, in the report."""

from __future__ import annotations

from edgeopt.bundle.document import TrialRow
from edgeopt.core.measurement import Measurement
from edgeopt.report.html import to_html
from edgeopt.report.markdown import to_markdown
from edgeopt.report.trials import trial_lines


def figures(divergence, sqnr):
    return (
        Measurement(name="divergence", value=divergence, unit="nats", n=64),
        Measurement(name="sqnr_db", value=sqnr, unit="dB", n=64),
    )


TRIALS = (
    TrialRow(
        name="adaround",
        kept=True,
        detail="9 layers",
        before=figures(0.02, 30.0),
        after=figures(0.01, 34.5),
        wall=Measurement(name="wall_s", value=2.5, unit="s", n=1),
    ),
    TrialRow(name="smooth", kept=False, detail="there are no LayerNorms that it could work on"),
)


def test_a_technique_is_a_row_with_what_it_was_before_and_after(sample_report):
    report = sample_report.model_copy(update={"trials": TRIALS})
    first, second = trial_lines(report)
    assert first == ("adaround (9 layers)", "kept", "0.0200 → 0.0100", "30.0 → 34.5", "–", "2.5")
    assert second[1:] == ("idle", "–", "–", "–", "–")
    for text in (to_markdown(report), to_html(report)):
        assert "What each technique brought" in text
        assert "30.0 → 34.5" in text


def test_a_report_without_techniques_has_no_such_table(sample_report):
    assert "What each technique brought" not in to_markdown(sample_report)
