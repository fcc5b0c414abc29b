"""The distance between what a student and its teacher compute on the way, without parameters of its own.

The teacher may be wider than the student, whose channels were pruned, so three distances share the work:

- of one shape: the squared error over the teacher's power (A. Romero et al. 2015, "FitNets", eq. 3, without the regressor
  that fits widths to each other);
- of other widths: attention transfer (S. Zagoruyko and N. Komodakis 2017, "Paying More Attention to Attention", eq. 2 with
  F²: the mean of squares over the channels, normalized per sample, and the squared distance of both). It asks where the
  activity is, on pixels or on tokens, not in which channel;
- of other widths and without positions, such as [N, C]: which samples are alike (F. Tung and G. Mori 2019,
  "Similarity-Preserving Knowledge Distillation", eq. 1 to 4): the batch's Gram matrices with rows of length 1, the mean over
  the rows (the paper divides by the batch once more).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F  # noqa: N812 - its name everywhere

from edgeopt.core.errors import RecipeError

__all__ = ["feature_distance", "without_points"]


def without_points(outputs: Sequence[torch.Tensor], points: int) -> Sequence[torch.Tensor]:
    """A net's outputs alone, of those that its features follow."""
    return outputs[: len(outputs) - points]


def feature_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """How far a feature is from the teacher's: a scalar, 0 where they agree.

    Args:
        student: float [N, …].
        teacher: float [N, …], of as many axes; those of another length are widths.

    Raises:
        RecipeError: They differ in their number of axes, or in the first, which is the samples'.
    """
    mine, theirs = student.float(), teacher.float()
    if mine.ndim != theirs.ndim or mine.ndim < 2 or len(mine) != len(theirs):
        raise RecipeError(
            "A feature of the student cannot be compared with the teacher's.",
            got=f"{list(mine.shape)} and {list(theirs.shape)}",
            fix="Leave it out of steps.distil.features: both need the same samples on their first axis.",
        )
    widths = [axis for axis in range(1, mine.ndim) if mine.shape[axis] != theirs.shape[axis]]
    if not widths:
        power = theirs.square().sum().clamp_min(torch.finfo(torch.float32).tiny)
        return (mine - theirs).square().sum() / power
    maps = [
        F.normalize(x.square().mean(widths).flatten(1), dim=1) for x in (mine, theirs) if mine.ndim > len(widths) + 1
    ]
    if not maps or maps[0].shape[1] == 1:
        maps = [F.normalize(x.flatten(1) @ x.flatten(1).T, dim=1) for x in (mine, theirs)]
    return (maps[0] - maps[1]).square().sum(1).mean()
