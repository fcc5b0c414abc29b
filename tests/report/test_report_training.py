"""A training in the report: its epochs as a table, its curve as a drawing."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from edgeopt.bundle.document import TrainingEpoch, TrainingSection
from edgeopt.core.measurement import Measurement
from edgeopt.report.html import to_html
from edgeopt.report.markdown import to_markdown
from edgeopt.report.training import training_plots


def section(losses=(0.9, 0.4, 0.3), accuracies=(88.0, 90.0, 92.5, 92.0), best=2):
    rows = []
    for epoch, accuracy in enumerate(accuracies):
        figures = () if accuracy is None else (Measurement(name="tune_accuracy_pct", value=accuracy, unit="%", n=500),)
        loss = losses[epoch - 1] if epoch else None
        rows.append(TrainingEpoch(epoch=epoch, loss=loss, learning_rate=1e-4 if epoch else None, figures=figures))
    return TrainingSection(
        step="qat", samples=5000, best_epoch=best, ended="all epochs were trained", epochs=tuple(rows)
    )


def with_training(report, *sections):
    return report.model_copy(update={"training": sections})


def test_markdown_has_a_row_per_epoch_and_marks_the_kept_one(sample_report):
    text = to_markdown(with_training(sample_report, section()))
    assert "qat: 5,000 samples, 3 epochs (all epochs were trained); kept: epoch 2" in text
    assert "| ★ 2 | 0.4 | 0.0001 | 92.50 % |" in text
    assert "| 0 | – | – | 88.00 % |" in text
    assert "## Training" not in to_markdown(sample_report)


def test_the_drawing_is_well_formed_and_rings_the_kept_epoch(sample_report):
    (plot,) = training_plots(with_training(sample_report, section()))
    drawing = ET.fromstring(str(plot.svg))
    assert [p.get("class") for p in drawing.iter("polyline")] == ["curve", "curve"]
    ringed = [g.find("title").text for g in drawing.iter("g") if g.find("circle[@class='ring']") is not None]
    assert ringed == ["epoch 2: training loss 0.4", "epoch 2: accuracy on the tuning split, % 92.5"]


def test_a_training_without_accuracy_or_without_epochs_is_drawn_as_far_as_it_goes(sample_report):
    (plain,) = training_plots(with_training(sample_report, section(accuracies=(None, None, None, None))))
    assert str(plain.svg).count("polyline") == 2  # one element, opened and closed
    (empty,) = training_plots(with_training(sample_report, section(losses=(), accuracies=(88.0,), best=0)))
    assert empty.missing == "no epoch was trained"


def test_the_page_holds_it(sample_report):
    page = to_html(with_training(sample_report, section()))
    assert "Training: qat" in page
    assert "Training: qat" not in to_html(sample_report)
