"""A pytest plugin: ``def test_model(edgeopt_gate): edgeopt_gate("dist/model", limits="limits.yaml")``.

Loaded at every start of pytest where edgeopt is installed, so it imports nothing but pytest; all else is imported when a
test asks for a verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from edgeopt.bundle.gate import GateResult

__all__ = ["edgeopt_gate", "pytest_addoption"]

_HELP = "What edgeopt_gate does where the figures cannot tell: fail (default), skip or pass."
_CHOICES = ("fail", "skip", "pass")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--edgeopt-on-inconclusive``, and the same as ``edgeopt_on_inconclusive`` in the ini file."""
    parser.getgroup("edgeopt").addoption("--edgeopt-on-inconclusive", choices=_CHOICES, default=None, help=_HELP)
    parser.addini("edgeopt_on_inconclusive", _HELP, default="")
    parser.addini("edgeopt_baselines", "The folder of baselines, from the ini file's folder.", default="baselines")


@pytest.fixture
def edgeopt_gate(request: pytest.FixtureRequest) -> Callable[..., GateResult]:
    """A callable that judges a bundle and fails the test where a limit is missed.

    Its arguments: the bundle's folder; ``limits``: a limits file, or the same as a mapping (without one: those of the
    bundle's recipe); ``baseline``: a bundle, a baseline's folder or file, or its name; ``on_inconclusive``: ``fail``,
    ``skip`` or ``pass``, before what the command line and the ini file say. It returns the ``GateResult``.
    """

    def judge(
        bundle: str | Path,
        *,
        limits: str | Path | Mapping[str, Any] | None = None,
        baseline: str | Path | None = None,
        on_inconclusive: str | None = None,
        device: str = "local",
    ) -> GateResult:
        __tracebackhide__ = True
        from edgeopt.core.errors import EdgeOptError  # noqa: PLC0415 - not at pytest's start
        from edgeopt.pipeline.gate import gate_bundle  # noqa: PLC0415

        policy = on_inconclusive or _policy(request.config)
        if policy not in _CHOICES:
            raise pytest.UsageError(f"edgeopt_on_inconclusive is {policy!r}; choose {', '.join(_CHOICES)}.")
        try:
            result = gate_bundle(
                Path(bundle),
                baseline=None if baseline is None else str(baseline),
                limits=_limits(limits),
                on_inconclusive="pass" if policy == "pass" else "fail",
                folder=request.config.rootpath / request.config.getini("edgeopt_baselines"),
                device=device,
            )
        except EdgeOptError as error:
            pytest.fail(f"edgeopt gate: {error}", pytrace=False)
        if result.status == "FAIL" or (result.status == "INCONCLUSIVE" and policy == "fail"):
            pytest.fail(_told(result), pytrace=False)
        if result.status == "INCONCLUSIVE" and policy == "skip":
            pytest.skip(_told(result))
        return result

    return judge


def _policy(config: pytest.Config) -> str:
    return str(config.getoption("--edgeopt-on-inconclusive") or config.getini("edgeopt_on_inconclusive") or "fail")


def _limits(limits: str | Path | Mapping[str, Any] | None) -> Any:
    if limits is None or isinstance(limits, str | Path):
        return None if limits is None else Path(limits)
    from edgeopt.core.documents import validate  # noqa: PLC0415
    from edgeopt.core.errors import RecipeError  # noqa: PLC0415
    from edgeopt.recipes.gate import GateLimits  # noqa: PLC0415

    return validate(GateLimits, {"schema_version": 1, **limits}, where="The limits of edgeopt_gate", error=RecipeError)


def _told(result: GateResult) -> str:
    """The verdict, and a line for each limit."""
    from edgeopt.report.gate_words import headline_words  # noqa: PLC0415

    return "\n".join(["edgeopt gate: " + headline_words(result), *(f"  {row.text}" for row in result.rows)])
