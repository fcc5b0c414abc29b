"""How well a graph still answers as the float one does, on the tuning split: what a step's gain is measured by.

The test split is never read here: what is chosen on a split cannot be judged on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter
from torch.nn import functional as F  # noqa: N812 - its name everywhere
from torch.utils import _pytree as pytree

from edgeopt.compress.calibrate import Feed
from edgeopt.compress.training.batches import target_tensor
from edgeopt.compress.training.losses import TaskLoss
from edgeopt.data.contract import Split

__all__ = ["Judge", "Score"]

Run = Callable[[Sequence[torch.Tensor]], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One graph against the float one, on the same samples.

    Attributes:
        divergence: The smaller the better. Classifiers: mean KL divergence, in nats, of the softmax of the first
            output from the float graph's. Else: squared error of all outputs over the float outputs' power.
        sqnr_db: Of all outputs together; infinite where they are equal.
        agreement: Share of samples whose largest score is the float graph's; None where there are no classes.
        loss: Mean cross-entropy against the labels of a classifier; of other tasks what the judge's own loss says; None
            without either.
        accuracy: Top-1, as a share; None without labels.
        n: How many samples.
    """

    divergence: float
    sqnr_db: float
    agreement: float | None
    loss: float | None
    accuracy: float | None
    n: int


class Judge:
    """Holds the float outputs of a split (not its samples), and scores other graphs against them.

    Args:
        reference: The float graph, or a callable on flat input tensors.
        feed: The samples; batches as the program takes them.
        classification: Whether the first output has one score per class on its last axis.
        loss: Of outputs and targets of a batch, a scalar, its mean; for tasks other than classification.
    """

    def __init__(
        self, reference: GraphModule | Run, feed: Feed, *, classification: bool, loss: TaskLoss | None = None
    ) -> None:
        self._feed, self._classification = feed, classification
        self._reference = [[leaf.clone() for leaf in leaves] for leaves in self._outputs(reference)]
        self._loss = None if classification else loss
        wanted = classification or loss is not None
        self._targets = _targets(feed.split, feed.size, feed.samples) if wanted else None

    @classmethod
    def on(
        cls,
        reference: GraphModule | Run,
        feed: Feed,
        split: Split,
        limit: int,
        *,
        classification: bool,
        loss: TaskLoss | None = None,
    ) -> Judge:
        """A judge on the first ``limit`` samples of ``split``, in the batches of ``feed``."""
        return cls(reference, replace(feed, split=split, limit=limit), classification=classification, loss=loss)

    @property
    def samples(self) -> int:
        """How many samples a score is the mean over."""
        return self._feed.samples

    @torch.no_grad()
    def score(self, model: GraphModule | Run) -> Score:
        """Run ``model`` on every sample. Constant memory but for the outputs of one batch."""
        divergence = noise = power = loss = 0.0
        agreed = right = done = 0
        for index, leaves in enumerate(self._outputs(model)):
            reference = self._reference[index]
            count = len(reference[0]) if reference[0].ndim else 1
            noise += sum(
                float((a.double() - b.double()).square().sum()) for a, b in zip(leaves, reference, strict=True)
            )
            power += sum(float(b.double().square().sum()) for b in reference)
            if self._classification:
                mine, theirs = F.log_softmax(leaves[0].double(), -1), F.log_softmax(reference[0].double(), -1)
                divergence += float((theirs.exp() * (theirs - mine)).sum())
                agreed += int((leaves[0].argmax(-1) == reference[0].argmax(-1)).sum())
                if self._targets is not None:
                    labels = self._targets[done : done + count]
                    loss += float(F.nll_loss(mine, labels, reduction="sum"))
                    right += int((leaves[0].argmax(-1) == labels).sum())
            elif self._loss is not None and self._targets is not None:
                loss += count * float(self._loss(leaves, self._targets[done : done + count]))
            done += count
        labelled = self._targets is not None
        return Score(
            divergence=divergence / done if self._classification else noise / power if power else math.inf,
            sqnr_db=10 * math.log10(power / noise) if noise and power else math.inf,
            agreement=agreed / done if self._classification else None,
            loss=loss / done if labelled else None,
            accuracy=right / done if labelled and self._classification else None,
            n=done,
        )

    @torch.no_grad()
    def _outputs(self, model: GraphModule | Run) -> Any:
        """The float leaves of each batch's outputs, rows that only fill a static batch cut off."""
        run = _run(model) if isinstance(model, GraphModule) else model
        for inputs, count in self._feed.batches():
            leaves = [
                x for x in pytree.tree_leaves(run(inputs)) if isinstance(x, torch.Tensor) and x.is_floating_point()
            ]
            yield [x[:count] if x.ndim and len(x) == len(inputs[0]) else x for x in leaves]


def _run(model: GraphModule) -> Run:
    return lambda inputs: Interpreter(model).run(*inputs, enable_io_processing=False)


def _targets(split: Split, size: int, limit: int) -> torch.Tensor | None:
    found = [batch.targets for batch in split.batches(size, limit)]
    if any(targets is None for targets in found) or not found:
        return None
    return torch.cat([target_tensor(targets) for targets in found if targets is not None])
