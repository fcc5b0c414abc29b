"""One precision per group of layers under a budget: an integer program, solved exactly.

The sum of the groups' sensitivities stands for the whole model's, as in W. Chen et al. 2021, "Towards Mixed-Precision
Quantization of Neural Networks via Constrained Optimization", section 3 (a multiple-choice knapsack). That is a model:
whoever uses a solution scores it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

__all__ = ["Choice", "choose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One alternative of one group.

    Attributes:
        cost: What the objective sums up.
        load: What the budget sums up.
        tie: Decides between choices of equal cost; the smaller, in [0, 1].
    """

    cost: float
    load: float
    tie: float = 0.0


def choose(groups: Sequence[Sequence[Choice]], budget: float) -> tuple[int, ...] | None:
    """One choice per group: the smallest total cost whose total load is at most ``budget``; None where there is none.

    Args:
        groups: The choices of each group, at least one each.
        budget: In the unit of ``load``; infinite for none.

    >>> choose([[Choice(cost=1, load=0), Choice(cost=0, load=3)], [Choice(cost=2, load=0), Choice(cost=0, load=3)]], 4)
    (0, 1)
    """
    if not groups:
        return () if budget >= 0 else None
    flat = [choice for group in groups for choice in group]
    owner = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    cost = np.array([choice.cost for choice in flat])
    load = np.array([choice.load for choice in flat])
    one_each = (owner[None, :] == np.arange(len(groups))[:, None]).astype(float)
    constraints = [optimize.LinearConstraint(one_each, 1, 1)]
    if np.isfinite(budget):
        # Loads may be tiny (nats): scaled, so that the solver's absolute tolerance is a relative one.
        unit = float(np.abs(load).max()) or 1.0
        constraints.append(optimize.LinearConstraint(load[None, :] / unit, -np.inf, budget / unit + 1e-9))
    spread = float(np.ptp(cost)) or 1.0
    found = optimize.milp(
        cost / spread + 1e-6 * np.array([choice.tie for choice in flat]) / len(groups),
        constraints=constraints,
        integrality=np.ones(len(flat)),
        bounds=optimize.Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        return None
    taken = found.x > 0.5
    starts = np.cumsum([0, *(len(group) for group in groups[:-1])])
    return tuple(int(np.argmax(taken[start : start + len(group)])) for start, group in zip(starts, groups, strict=True))
