"""The order of things: from a model and data to a bundle whose every number was measured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeopt.bundle.load import Bundle
from edgeopt.bundle.write import check_destination
from edgeopt.core.errors import RecipeError
from edgeopt.core.events import Event, ProgressListener, ignore_progress
from edgeopt.core.spec import TensorSpec
from edgeopt.data.load import check_data
from edgeopt.devices.base import Device
from edgeopt.devices.local import LocalDevice
from edgeopt.devices.registry import opened
from edgeopt.model.sniff import sniff
from edgeopt.pipeline.build_there import build_bundle
from edgeopt.pipeline.cache import StageCache
from edgeopt.pipeline.candidates import judge_candidates
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.engines import build_engine
from edgeopt.pipeline.ladder import climb
from edgeopt.pipeline.ladder_plan import make_ladder_plan, with_data
from edgeopt.pipeline.mixed import resolve_mixed
from edgeopt.pipeline.numerics import check_devices, record_numerics
from edgeopt.pipeline.on_device import demand_runtimes, host_of, is_remote, judged_for
from edgeopt.pipeline.options import CompileOptions
from edgeopt.pipeline.plan import Plan, make_plan
from edgeopt.pipeline.prune_search import resolve_pruning
from edgeopt.pipeline.reading import read_data, read_model
from edgeopt.pipeline.roofline import record_roofline
from edgeopt.pipeline.run import Run, make_graphs
from edgeopt.pipeline.samples import parity_inputs
from edgeopt.pipeline.ship import ship
from edgeopt.pipeline.target_options import demand_opset, with_options
from edgeopt.recipes.check import check, default_recipe_name
from edgeopt.recipes.ladder import rungs_of
from edgeopt.recipes.load import load_recipe
from edgeopt.targets.load import find_target

__all__ = ["compile", "compile_model", "dry_run", "prepared"]

_FOR_STEPS = 0.8  # of the time limit: a training that ends then leaves time to build and measure what it made


def compile(  # noqa: A001 - the verb of the field, used as edgeopt.compile
    model: Any,
    *,
    target: str,
    data: Any = None,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    inputs: Sequence[TensorSpec] = (),
    factory: str | None = None,
    factory_args: Mapping[str, str] | None = None,
    trust_model: bool = False,
    output: Path | str | None = None,
    seed: int = 0,
    max_minutes: float | None = None,
    use_cache: bool = True,
    device: str | Device | None = None,
    numerics: Sequence[str] = (),
    progress: ProgressListener = ignore_progress,
) -> Bundle:
    """Take a trained model to a bundle for a target.

    Args:
        model: A model file's path, an ``nn.Module`` or an ``ExportedProgram``.
        target: A target's name or alias, e.g. ``jetson`` (``edgeopt targets`` lists them).
        data: A manifest, ``.npz``, folder or ``package.module:callable``; without it nothing is calibrated or judged.
        recipe: A recipe's name or file; None: the target's default.
        overrides: ``["steps.quantize.observer=histogram"]``.
        inputs: Input specs, where the model does not carry them.
        factory: ``package.module:callable`` that makes the module a state dict belongs to, with ``factory_args``.
        trust_model: Load files that can execute code.
        output: The bundle's folder; None: ``dist/<model>-<target>``.
        seed: Of every random choice.
        max_minutes: When this is over, a recipe that tries several yields the best so far, and training ends early.
        use_cache: Reuse the results of earlier runs.
        device: Where engines are run and measured: ``local``, ``browser``, ``ssh://user@host``, a name of
            ``devices.toml``. Another machine must be what the target describes; an emulated CPU (``qemu:cortex-a53``)
            gives numerics only. None: this machine, or the browser for a target that is one.
        numerics: Devices on which what is shipped is run too, its outputs compared with this machine's:
            ``["qemu:cortex-a53", "qemu:max"]``.
        progress: Told how far the run is.

    Returns:
        The bundle; ``bundle.report`` holds every figure. Of a recipe with a ladder Ctrl-C yields the best so far, once
        there is something; ``bundle.report.ladder.ended`` says so.

    Raises:
        EdgeOptError: The input, the recipe or a stage failed; nothing was written.
    """
    options = CompileOptions(
        model=Path(model) if isinstance(model, str) else model,
        target=target,
        data=data,
        recipe=recipe,
        overrides=overrides,
        inputs=inputs,
        factory=factory,
        factory_args=factory_args or {},
        trust_model=trust_model,
        output=Path(output) if output else None,
        seed=seed,
        max_minutes=max_minutes,
        use_cache=use_cache,
        device=device,
        numerics=numerics,
    )
    return compile_model(options, progress)


def compile_model(options: CompileOptions, progress: ProgressListener = ignore_progress) -> Bundle:
    """``compile``, with its arguments in one value."""
    check_devices(options.numerics, has_data=options.data is not None)
    with prepared(options, progress) as run:
        _demand_runnable(run)
        bundle = _shipped(run)
        if is_remote(run.device) and bundle.engine.status == "not_built":
            bundle = build_bundle(bundle.directory, device=run.device, progress=progress)
        shipped = bundle.report.shipped
        interrupted = bundle.report.ladder is not None and bundle.report.ladder.ended == "interrupted"
        if run.plan.recipe.measure.roofline and shipped.status == "measured" and not interrupted:
            bundle = record_roofline(run.context, bundle, run.device)
        if options.numerics and run.data is not None and not interrupted:
            count = options.numerics_samples
            bundle = record_numerics(run.context, bundle, run.data, options.numerics, samples=count)
        return bundle


def _demand_runnable(run: Run) -> None:
    """Whether other devices than the target's own can run what is made, where that is asked for."""
    candidates = run.plan.candidates
    if run.options.numerics and not any(planned.availability.needed for planned in candidates):
        raise RecipeError(
            "The engine is built on its device and runs nowhere else, so its outputs cannot be compared.",
            got=f"--numerics {','.join(run.options.numerics)} for {', '.join(c.rules.name for c in candidates[:1])}",
            fix="Leave it out.",
        )


def _shipped(run: Run) -> Bundle:
    data, context, plan, options = run.data, run.context, run.plan, run.options
    samples = parity_inputs(run.loaded.model, data, plan.recipe.parity.samples, options.seed)
    if plan.rungs:
        return climb(run, samples)
    plan = resolve_pruning(run, plan, samples)
    stages = run.stages(plan, samples)
    plan = resolve_mixed(run.at(stages[-1]), plan, samples)
    graphs = make_graphs(run, plan, samples, stages)
    built = [build_engine(context, plan, planned, graphs[planned.graph]) for planned in plan.candidates]
    judged = judge_candidates(context, plan, run.device, built, samples=samples, data=data)
    model = run.loaded.model
    return ship(context, options, plan, model=model, data=data, judged=judged, samples=samples, stages=stages)


def dry_run(options: CompileOptions, progress: ProgressListener = ignore_progress) -> Plan:
    """Check model, data, target and recipe; decide what would be done; do none of it."""
    check_devices(options.numerics, has_data=options.data is not None)
    with prepared(options, progress) as run:
        _demand_runnable(run)
        return run.plan


@contextmanager
def prepared(options: CompileOptions, progress: ProgressListener, *, writes: bool = True) -> Iterator[Run]:
    """Check everything that can be checked before work starts; ``writes``: whether the run ends in a bundle."""
    where = find_target(options.target).device if options.device is None else options.device
    with opened(where, progress=progress) as device:
        yield from _prepared(options, progress, device, writes=writes)


def _prepared(options: CompileOptions, progress: ProgressListener, device: Device, *, writes: bool) -> Iterator[Run]:
    started = time.monotonic()
    plan = _plan(options, device)
    name = Path(options.model).stem if isinstance(options.model, (str, Path)) else type(options.model).__name__
    if writes:
        check_destination(options.destination(name, plan.target.name))
    if options.data is not None:
        check_data(options.data)
    cache = StageCache(enabled=options.use_cache)
    try:
        deadline = None if options.max_minutes is None else started + _FOR_STEPS * 60 * options.max_minutes
        context = RunContext(
            cache=cache,
            host=(LocalDevice() if is_remote(device) else device).info().name,  # stages are made here
            seed=options.seed,
            listener=progress,
            deadline=deadline,
        )
        loaded = read_model(context, options)
        data = None
        if options.data is not None:
            data = read_data(context, options, loaded)
        plan = with_data(plan, data)
        context.note([Event(kind="fallback", stage="plan", message=line) for line in plan.left_out])
        yield Run(context=context, options=options, plan=plan, loaded=loaded, data=data, device=device, started=started)
    finally:
        cache.close()


def _plan(options: CompileOptions, device: Device) -> Plan:
    target = find_target(options.target, host_of(device))
    has_data = options.data is not None
    name, why = (options.recipe, "") if options.recipe else default_recipe_name(target, has_data)
    recipe = load_recipe(name, options.overrides)
    target = with_options(target, recipe)
    is_onnx = isinstance(options.model, Path) and sniff(options.model) == "onnx"
    if is_onnx:
        from edgeopt.model.onnxfile import opset_of

        demand_opset(target, opset_of(options.model))
    measured_here, reason = judged_for(target, device)
    demand_runtimes(device, target)
    if recipe.ladder:
        rungs = rungs_of(recipe, target, overrides=options.overrides, has_data=has_data, is_onnx=is_onnx)
        return make_ladder_plan(
            rungs, target=target, recipe=recipe, recipe_reason=why, measured_here=measured_here, measured_reason=reason
        )
    check(recipe, target, has_data=has_data, is_onnx=is_onnx)
    return make_plan(
        target=target, recipe=recipe, recipe_reason=why, measured_here=measured_here, measured_reason=reason
    )
