"""What the report says of how models were trained, whichever of them ships."""

from __future__ import annotations

from types import SimpleNamespace

from edgeopt.bundle.document import TrainingSection
from edgeopt.pipeline.ship import _trainings


def section(step):
    return TrainingSection(step=step, samples=10, best_epoch=1, ended="all epochs were trained", epochs=())


def judged(*candidates):
    built = [SimpleNamespace(graph=SimpleNamespace(training=[section(step) for step in each])) for each in candidates]
    return SimpleNamespace(built=built)


def test_where_the_reference_ships_the_trainings_of_every_candidate_are_told_once():
    every = judged((), ("prune",), ("prune", "distil"), ("prune", "distil", "qat"), ("prune",))
    assert [one.step for one in _trainings(every)] == ["prune", "distil", "qat"]


def test_where_nothing_was_trained_there_is_nothing_to_tell():
    assert _trainings(judged((), ())) == []
