"""What a run starts from: the model as an earlier run normalized it, and the data, checked against it."""

from __future__ import annotations

import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgeopt.data.contract import Dataset
from edgeopt.data.load import load_data
from edgeopt.model.identity import identify
from edgeopt.model.store import load_stored, save_model
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.graphs import Loaded
from edgeopt.pipeline.options import CompileOptions

__all__ = ["read_data", "read_model"]


def read_model(context: RunContext, options: CompileOptions) -> Loaded:
    """Load the model, or find it as an earlier run normalized it."""
    from_file = isinstance(options.model, Path)
    identity = None
    if from_file:
        identity = identify(
            options.model, inputs=options.inputs, factory=options.factory, factory_args=options.factory_args
        )
    made: list[Any] = []

    def load() -> Any:
        from edgeopt.model.load import load_model

        if not made:
            made.append(
                load_model(
                    options.model,
                    inputs=options.inputs,
                    factory=options.factory,
                    factory_args=options.factory_args,
                    trust=options.trust_model,
                )
            )
        return made[0]

    key = {"identity": identity or load().identity, "torch": version("torch"), "trusted": options.trust_model}
    folder = context.stage("model", "load the model", key, lambda folder: save_model(load(), folder))
    model = load_stored(folder, with_program=False)
    if from_file:  # equal files of different names share an entry
        model = replace(model, name=options.model.stem, source=options.model)
    context.note(model.events)
    return Loaded(model=model, directory=folder)


def read_data(context: RunContext, options: CompileOptions, loaded: Loaded) -> Dataset:
    """Open the data, check all of it, and split it."""
    begun, model = time.perf_counter(), loaded.model
    data = load_data(
        options.data, inputs=model.inputs, outputs=model.outputs, seed=options.seed, progress=context.progress
    )
    context.record("read and check the data", time.perf_counter() - begun)
    context.note(data.events)
    return data
