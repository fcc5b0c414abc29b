"""Quantization-aware training, start to end: calibrate, train on the grid, convert, export again."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

from edgeopt.compress.attributes import source_name
from edgeopt.compress.base import StepContext, StepResult
from edgeopt.compress.fake_quant import ObservedActivation, insert_fake_quants
from edgeopt.compress.finish import finish
from edgeopt.compress.live_norm import LiveConv, find_norms, fold_norms, insert_norms
from edgeopt.compress.normalize import normalize
from edgeopt.compress.observers import ActivationObserver, WeightObserver
from edgeopt.compress.prepare import Session, open_session, prepare
from edgeopt.compress.score import Judge
from edgeopt.compress.sparse_weights import nm_mask, student_masks
from edgeopt.compress.training.batches import TrainingBatches
from edgeopt.compress.training.job import Job, Trained
from edgeopt.compress.training.loop import train
from edgeopt.compress.training.losses import find_loss
from edgeopt.compress.training.outcome import events_of, section_of
from edgeopt.compress.training.reference import reference_graph
from edgeopt.compress.training.tape import Tape, own_tensors, trained_parameters
from edgeopt.core.events import Event
from edgeopt.core.sparsity import Pattern
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.schema import Qat

__all__ = ["QatRun", "Student", "finish_qat", "start_qat", "train_quantized"]

_ALIKE_DB = 30.0  # outputs before and after conversion; a step that rounds the other way now and then is above that
_EXACT_DB = 200.0  # stands for infinity in a report


class Student(torch.nn.Module):
    """A calibrated graph with fake-quants in place of its observers.

    Args:
        model: With ``insert_fake_quants`` and ``insert_norms`` done.
        config: When ranges and BatchNorms freeze.
        norms: As ``insert_norms`` returns it.
    """

    def __init__(self, model: GraphModule, config: Qat, norms: Mapping[str, str]) -> None:
        super().__init__()
        self.tape = Tape(model)
        self._ranges_until = config.freeze_ranges_after or 0
        self._norms_until = 0 if config.batchnorm == "frozen" else config.batchnorm.freeze_after
        self._biased = _biased(model, self.tape.state_names, norms)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Flat inputs to flat outputs."""
        outputs: tuple[torch.Tensor, ...] = self.tape(*inputs)
        return outputs

    def begin_epoch(self, epoch: int) -> None:
        """Freeze ranges and BatchNorms whose time is over."""
        for module in self.modules():
            if isinstance(module, LiveConv):
                module.live = epoch < self._norms_until
            elif isinstance(module, ObservedActivation):
                module.moving = epoch < self._ranges_until

    @torch.no_grad()
    def settle(self) -> None:
        """Keep every bias representable in int32 beside its scales."""
        for activation, weight, holder in self._biased:
            scale, owner = getattr(self.tape, activation).scale, getattr(self.tape, holder)
            if isinstance(owner, LiveConv):
                owner.grid.allow_int32_bias(owner.folded()[1], scale)
            else:
                getattr(self.tape, weight).allow_int32_bias(owner, scale)


@dataclass(frozen=True, kw_only=True)
class QatRun:
    """A quantization that is being trained.

    Attributes:
        prepared: The graph that ``convert_pt2e`` will take; the student trains its parameters.
        norms: As ``insert_norms`` returns it.
        samples: How many calibration samples were seen.
    """

    session: Session
    prepared: GraphModule
    norms: Mapping[str, str]
    samples: int
    job: Job


def train_quantized(model: TrainedModel, config: Qat, context: StepContext) -> StepResult:
    """Train a program on the grid; ``QatStep.run`` has checked that there are a program, rules and splits.

    Raises:
        RecipeError: A pattern matches no layer; nothing can be trained; the loss is no loss.
        DataError: The data does not fit the model.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)  # torch's own, while it copies its graphs
        torch.manual_seed(context.seed)
        run = start_qat(open_session(model, config, context), config)
        return finish_qat(run, train(run.job, context.progress))


@torch.no_grad()
def start_qat(session: Session, config: Qat) -> QatRun:
    """Calibrate, and put what trains in place of what watched.

    Raises:
        RecipeError: Nothing can be trained, or there is nothing to train on.
        DataError: The data does not fit the model.
    """
    trained, data = trained_parameters(session.program), session.data
    split = "matmul" in session.rules.quantized_ops
    reference = Tape(
        reference_graph(session.model, session.graph, session.context, lambda p: normalize(p, split_attention=split))
    )
    norms = find_norms(session.graph) if config.batchnorm != "frozen" else {}
    prepared, samples = prepare(session)
    own_tensors(prepared, {node.name for node in prepared.graph.nodes if _is_trained(node, trained)})
    insert_fake_quants(prepared, config)
    names = insert_norms(prepared, norms)
    fixed = session.model.inputs[0].batch
    student = Student(prepared, config, names)
    job = Job(
        student=student,
        reference=reference,
        loss=find_loss(config.training, task=data.task),
        config=config.training,
        batches=TrainingBatches(
            split=data.splits["train"],
            feed=session.feed,
            size=fixed if isinstance(fixed, int) else config.training.batch_size,
            seed=session.context.seed,
        ),
        feed=session.feed,
        tune=data.splits["tune"],
        workspace=session.context.workspace,
        deadline=session.context.deadline,
        masks=_masks(session, prepared, student, names),
    )
    return QatRun(session=session, prepared=prepared, norms=names, samples=samples, job=job)


@torch.no_grad()
def finish_qat(run: QatRun, result: Trained) -> StepResult:
    """Convert what was trained, and say what conversion changed."""
    fold_norms(run.prepared, run.norms)
    converted = convert_pt2e(run.prepared, fold_quantize=False)
    changed, figures = _compare(run.job, converted)
    events = [*events_of(result, "qat"), *changed]
    done = finish(run.session, converted, run.samples, events=events, stats=_stats(result) | figures)
    return dataclasses.replace(done, training=(section_of(result, run.job, "qat"),))


def _masks(
    session: Session, prepared: GraphModule, student: Student, norms: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    """Masks of the sparse parameters that are trained; a BatchNorm that is folded scales each output's zeros alike."""
    names = {key: f"tape.{name}" for key, name in student.tape.state_names.items()}
    masks = student_masks(prepared, session.model.sparse, names, normalized=True)
    for node, live in norms.items():
        one = session.model.sparse.get(session.sparse.get(node, ""))
        if one is not None:
            weight = prepared.get_parameter(f"{live}.weight")
            masks[f"{names[live]}.weight"] = nm_mask(weight, Pattern.read(one.pattern), 1)
    return masks


def _is_trained(node: Node, names: set[str]) -> bool:
    """Whether a constant is a trained parameter, was made of one, or is the bias that folding a BatchNorm added."""
    if node.op != "get_attr":
        return False
    source = source_name(node)
    return source in names or source.removesuffix("_bias") in names


def _biased(model: GraphModule, state_names: Mapping[str, str], norms: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Names in the tape of each quantized layer's activation and weight fake-quants, and of what holds its bias."""
    modules = dict(model.named_modules(remove_duplicate=False))
    found = []
    for node in model.graph.nodes:
        if node.op != "call_function" or len(node.args) < 3 or not isinstance(node.args[2], Node):
            continue
        x, weight, bias = node.args[:3]
        if not isinstance(x, Node) or not isinstance(weight, Node) or bias.op != "get_attr":
            continue
        is_quantized = isinstance(modules.get(str(x.target)), ActivationObserver)
        if is_quantized and isinstance(modules.get(str(weight.target)), WeightObserver):
            live = norms.get(node.name)
            grid = "" if live else state_names[str(weight.target)]
            found.append((state_names[str(x.target)], grid, state_names[live or str(bias.target)]))
    return found


def _compare(job: Job, converted: GraphModule) -> tuple[Sequence[Event], dict[str, float]]:
    """What conversion changed on the tuning split; it should be nothing. An event where it is not, and figures."""
    classification = job.loss.classification
    before = Judge.on(lambda x: job.student(*x), job.feed, job.tune, len(job.tune), classification=classification)
    alike = before.score(converted)
    figures = {"sqnr_at_convert_db": min(alike.sqnr_db, _EXACT_DB)}
    if alike.agreement is not None:
        figures["agreement_at_convert_pct"] = 100 * alike.agreement
    if alike.sqnr_db >= _ALIKE_DB:
        return [], figures
    message = f"Conversion changed what was trained: {alike.sqnr_db:.1f} dB between both on the tuning split."
    return [Event(kind="warning", stage="qat", message=message)], figures


def _stats(result: Trained) -> dict[str, float | int | str]:
    return {"epochs": len(result.curve) - 1, "best_epoch": result.best_epoch, "ended": result.ended}
