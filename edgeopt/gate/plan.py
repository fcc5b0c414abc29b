"""Before a gate is trusted: how many samples it needs, and what drop a test split can show at all."""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.bundle.document import Report
from edgeopt.core.errors import BundleError, RecipeError
from edgeopt.measure import statistics

__all__ = ["Observed", "TestPlan", "TestPlanRow", "observed", "plan_test"]

_TYPICAL = (0.005, 0.01, 0.02, 0.05, 0.1)  # from a good int8 net to a pruned one


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What a bundle's own test showed: its samples, and the share on which exactly one of FP32 and candidate is right."""

    samples: int
    discordance: float
    candidate: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TestPlanRow:
    """What one discordance asks for. Drops, limits and discordances are in percentage points.

    Attributes:
        discordance_pp: Share of the samples on which exactly one of FP32 and candidate is right.
        samples_to_pass: With so many a model whose true drop is ``expected_drop_pp`` PASSes with the wanted power; None:
            more than two million.
        samples_to_fail: With so many a model whose true drop is twice the limit FAILs with the wanted power.
        samples: The larger of both.
        pass_power: With the samples at hand: how likely the model that has the expected drop PASSes.
        fail_power: Likewise, how likely one with twice the limit FAILs.
        detectable_drop_pp: The smallest true drop that FAILs with the wanted power.
        holdable_limit_pp: The smallest limit that the expected drop PASSes with the wanted power.
    """

    discordance_pp: float
    samples_to_pass: int | None
    samples_to_fail: int | None
    samples: int | None
    pass_power: float | None = None
    fail_power: float | None = None
    detectable_drop_pp: float | None = None
    holdable_limit_pp: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TestPlan:
    """What a gate on the paired accuracy drop needs.

    Attributes:
        max_drop_pp: The gate's limit.
        power: How often the gate is to come to its verdict.
        expected_drop_pp: The true drop of a model that is to PASS.
        samples: Those at hand; None where they are not known.
        assumed: Where the discordance comes from.
    """

    max_drop_pp: float
    power: float
    expected_drop_pp: float
    level: float
    samples: int | None
    assumed: str
    rows: tuple[TestPlanRow, ...]


def observed(report: Report) -> Observed:
    """What the shipped candidate's test showed.

    Raises:
        BundleError: Its drop was not measured on labelled data, or it is the FP32 reference itself.
    """
    shipped = report.shipped
    drop = shipped.figure("drop_pp")
    counts = {} if drop is None else drop.conditions
    lost, won = counts.get("only_fp32_right"), counts.get("only_candidate_right")
    if drop is None or not drop.n or not isinstance(lost, int) or not isinstance(won, int):
        why = "it is the FP32 reference itself" if shipped.role == "reference" else "its drop was not measured"
        raise BundleError(
            "The bundle does not show how often FP32 and candidate differ.",
            got=f"{shipped.id}: {why}",
            fix="Give --samples and --discordance instead.",
        )
    return Observed(samples=drop.n, discordance=(lost + won) / drop.n, candidate=shipped.id)


def plan_test(
    *,
    max_drop: float,
    power: float = 0.9,
    expected_drop: float = 0.0,
    discordance: float | None = None,
    samples: int | None = None,
    assumed: str = "",
    level: float = 0.95,
) -> TestPlan:
    """Plan a non-inferiority gate on the accuracy drop. All but ``samples`` and ``power`` are shares: 0.01 is 1 pp.

    Args:
        max_drop: The limit.
        power: In (0, 1).
        expected_drop: The true drop of a model that is to PASS, below the limit.
        discordance: As in ``TestPlanRow``; None: a row for each of several that are met in practice.
        samples: Of the test split, where there is one already.
        assumed: Where ``discordance`` comes from.

    Raises:
        RecipeError: A number is outside of what makes sense.
    """
    _check(max_drop, power, expected_drop, discordance, samples)
    least = max(abs(expected_drop), 1e-6)
    given = _TYPICAL if discordance is None else (discordance,)
    rows = tuple(
        _row(max(one, least), limit=max_drop, power=power, expected=expected_drop, samples=samples, level=level)
        for one in given
    )
    return TestPlan(
        max_drop_pp=100 * max_drop,
        power=power,
        expected_drop_pp=100 * expected_drop,
        level=level,
        samples=samples,
        assumed=assumed or ("given" if discordance is not None else "a range met in practice"),
        rows=rows,
    )


def _row(
    discordance: float, *, limit: float, power: float, expected: float, samples: int | None, level: float
) -> TestPlanRow:
    worse = min(2 * limit, 1.0)
    differing = max(discordance, worse)  # no drop is larger than the share of samples that differ
    to_pass = statistics.samples_needed(limit=limit, drop=expected, discordance=discordance, power=power, level=level)
    to_fail = statistics.samples_needed(limit=limit, drop=worse, discordance=differing, power=power, level=level)
    row = TestPlanRow(
        discordance_pp=100 * discordance,
        samples_to_pass=to_pass,
        samples_to_fail=to_fail,
        samples=None if to_pass is None or to_fail is None else max(to_pass, to_fail),
    )
    if samples is None:
        return row
    at = {"level": level, "power": power}
    detectable = statistics.detectable_drop(samples, limit=limit, discordance=discordance, **at)
    holdable = statistics.holdable_limit(samples, drop=expected, discordance=discordance, **at)
    return TestPlanRow(
        discordance_pp=row.discordance_pp,
        samples_to_pass=to_pass,
        samples_to_fail=to_fail,
        samples=row.samples,
        pass_power=statistics.pass_power(samples, limit=limit, drop=expected, discordance=discordance, level=level),
        fail_power=statistics.fail_power(samples, limit=limit, drop=worse, discordance=differing, level=level),
        detectable_drop_pp=None if detectable is None else 100 * detectable,
        holdable_limit_pp=None if holdable is None else 100 * holdable,
    )


def _check(max_drop: float, power: float, expected_drop: float, discordance: float | None, samples: int | None) -> None:
    if not 0 < max_drop < 0.5:
        raise RecipeError(
            "The largest drop lies between 0 and 50 percentage points.", got=f"{100 * max_drop:g} pp", fix="Write 1pp."
        )
    if not 0.5 <= power < 1:
        raise RecipeError("The power lies between 0.5 and 1.", got=f"{power:g}", fix="Usual are 0.8 and 0.9.")
    if not -max_drop < expected_drop < max_drop:
        raise RecipeError(
            "The expected drop must be smaller than the limit: a model on the limit passes by luck.",
            got=f"{100 * expected_drop:g} pp against {100 * max_drop:g} pp",
        )
    if discordance is not None and not 0 <= discordance <= 1:
        raise RecipeError("The discordance is a share of the samples.", got=f"{100 * discordance:g} pp")
    if samples is not None and samples < 1:
        raise RecipeError("A test split holds at least one sample.", got=samples)
