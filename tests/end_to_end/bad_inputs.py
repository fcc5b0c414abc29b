"""Every bad input that a user can give, and what edgeopt must say: one list, for the tests and for the printed table.

``test_bad_input.py`` runs them, ``bad_input_table.py`` prints them.
"""

from __future__ import annotations

import os
import pickle
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import bad_nets
import hostile
import numpy as np
import onnx
import torch
from quick import FAST


class Unavailable(Exception):
    """Why a case cannot be made on this machine."""


@dataclass(kw_only=True)
class World:
    """Where one case happens.

    Attributes:
        folder: Empty at first.
        mlp: The folder with a good model and good data.
        marker: What a hostile file would make.
        output: Where the bundle would go; a case may choose another place.
        environment: What the case sets.
    """

    folder: Path
    mlp: Path
    marker: Path
    output: Path
    environment: dict[str, str] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def model(self) -> Path:
        return self.mlp / "mlp.pt2"

    @property
    def data(self) -> Path:
        return self.mlp / "mlp.npz"

    def file(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def npz(self, **arrays: np.ndarray) -> Path:
        """The good data with arrays replaced."""
        with np.load(self.data) as good:
            np.savez(self.folder / "data.npz", **({"x": good["x"][:100], "y": good["y"][:100]} | arrays))
        return self.folder / "data.npz"

    def weights(self, net: torch.nn.Module) -> Path:
        torch.save(net.state_dict(), self.folder / "weights.pt")
        return self.folder / "weights.pt"

    def exported(self, net: torch.nn.Module) -> Path:
        torch.export.save(torch.export.export(net.eval(), (torch.ones(1, 20),)), self.folder / "net.pt2")
        return self.folder / "net.pt2"

    def disk(self, *, options: str = "size=64k") -> Path:
        """A small file system of its own."""
        path = self.folder / "disk"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
        except OSError as error:
            raise Unavailable(f"no tmpfs can be mounted: {error}") from error
        if done.returncode:
            raise Unavailable(f"no tmpfs can be mounted: {done.stderr.strip()}")
        self.stack.callback(subprocess.run, ["umount", str(path)], check=True)
        return path


@contextmanager
def new_world(mlp: Path) -> Iterator[World]:
    """A world that is gone afterwards, with what was mounted in it."""
    with TemporaryDirectory(prefix="bad-input-") as scratch, ExitStack() as stack:
        folder, marker, output = (Path(scratch) / name for name in ("given", "executed", "made"))
        folder.mkdir()
        yield World(folder=folder, mlp=mlp, marker=marker, output=output / "bundle", stack=stack)


Arguments = Callable[[World], list[str]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A bad input.

    Attributes:
        name: As the table says it.
        arguments: Makes the files, and gives the command line.
        says: What the message must hold; each a regular expression.
        code: The exit code.
        before_work: Whether it must be found before any stage is made.
        kept: What must stay as it was, where the destination exists already.
    """

    name: str
    arguments: Arguments
    says: tuple[str, ...]
    code: int = 1
    before_work: bool = False
    kept: tuple[str, ...] = ()


def compiled(
    world: World, model: Path | None = None, *more: str, data: Path | str | None = None, target: str = "openvino-cpu"
) -> list[str]:
    """The command line of a compile; the model and the data are good unless given."""
    output = [] if "-o" in more else ["-o", str(world.output)]
    given = ["--data", str(data or world.data)] if data != "" else []
    return ["compile", str(model or world.model), "--target", target, *given, *output, *FAST, *more]


def _file(content: bytes | str, name: str = "model.pt") -> Arguments:
    return lambda world: compiled(world, world.file(name, content))


def _cut(world: World) -> list[str]:
    content = world.model.read_bytes()
    return compiled(world, world.file("model.pt2", content[: len(content) // 2]))


def _archive(form: str) -> Arguments:
    def arguments(world: World) -> list[str]:
        path = world.folder / "hostile.pt2"
        return compiled(world, hostile.tampered(world.model, path, hostile.ARCHIVES[form][0](world.marker)))

    return arguments


def _weights(net: Callable[[], torch.nn.Module], *more: str) -> Arguments:
    return lambda world: compiled(world, world.weights(net()), *more)


def _pickled(world: World) -> list[str]:
    torch.save(bad_nets.Branches(), world.folder / "module.pt")
    return compiled(world, world.folder / "module.pt")


def _renamed(world: World) -> list[str]:
    state = bad_nets.small().state_dict()
    state["extra"] = state.pop("0.bias")
    torch.save(state, world.folder / "weights.pt")
    return compiled(world, world.folder / "weights.pt", *SMALL, "--input", "x:float32[1,20]")


def _data(**arrays: Callable[[], np.ndarray]) -> Arguments:
    return lambda world: compiled(world, data=world.npz(**{name: make() for name, make in arrays.items()}))


def _with_nan(world: World) -> list[str]:
    x = np.random.default_rng(0).standard_normal((100, 20)).astype(np.float32)
    x[41, 3] = np.nan
    return compiled(world, data=world.npz(x=x))


def _nan_model(world: World) -> list[str]:
    return compiled(world, world.exported(bad_nets.Logarithm(0.0)))


def _nan_on_one_sample(world: World) -> list[str]:
    rng = np.random.default_rng(0)
    x, others = rng.random((100, 20), np.float32), rng.random((2, 50, 20), np.float32)
    x[17, 0] = -1.5
    labels = rng.integers(0, 2, 100)
    data = world.npz(x=x, y=labels, x_calibration=others[0], x_tune=others[1], y_tune=labels[:50])
    return compiled(world, world.exported(bad_nets.Logarithm(-1.0)), data=data)


def _onnx(location: str, *, link: bool = False) -> Arguments:
    def arguments(world: World) -> list[str]:
        folder = world.folder / "model"
        folder.mkdir()
        world.file("secret", bytes(24))
        if link:
            (folder / location).symlink_to(world.folder / "secret")
        hostile.external(folder / "m.onnx", location)
        return compiled(world, folder / "m.onnx", "-r", "fp32", data="")

    return arguments


def _bad_onnx(world: World) -> list[str]:
    model = hostile.onnx_model()
    model.graph.node[0].input[1] = "nowhere"
    onnx.save(model, world.folder / "m.onnx")
    return compiled(world, world.folder / "m.onnx", "-r", "fp32", data="")


def _without_chromium(world: World, arguments: list[str]) -> list[str]:
    world.environment["EDGEOPT_CHROMIUM"] = "no-such-chromium"
    return arguments


def _training(*overrides: str, labelled: bool = True, net: Callable[[], torch.nn.Module] | None = None) -> Arguments:
    """Good training data and the recipe int8-qat, with something wrong about them."""

    def arguments(world: World) -> list[str]:
        with np.load(world.data) as good:
            x, y = good["x"], good["y"]
        arrays = {"x": x[:100], "y": y[:100], "x_train": x, "y_train": y}
        kept = {name: array for name, array in arrays.items() if labelled or name.startswith("x")}
        np.savez(world.folder / "train.npz", **kept)
        model = world.exported(net()) if net else None
        more = [word for override in overrides for word in ("--set", override)]
        return compiled(world, model, "-r", "int8-qat", *more, data=world.folder / "train.npz")

    return arguments


def _frozen() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(20, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).requires_grad_(False)


def _recipe_file(world: World) -> list[str]:
    recipe = "schema_version: 1\nname: mine\nsteps: [{quantise: {observer: minmax}}]\n"
    return compiled(world, None, "-r", str(world.file("mine.yaml", recipe)))


def _empty_folder(world: World) -> list[str]:
    (world.folder / "photos").mkdir()
    return compiled(world, data=world.folder / "photos")


def _set(*overrides: str) -> Arguments:
    return lambda world: compiled(world, None, *(part for text in overrides for part in ("--set", text)))


def _output(make: Callable[[World], Path]) -> Arguments:
    return lambda world: compiled(world, None, "-o", str(make(world)))


def _not_a_bundle(world: World) -> list[str]:
    world.output.mkdir(parents=True)
    (world.output / "thesis.txt").write_text("years of work")
    return compiled(world)


def _full(world: World) -> list[str]:
    disk = world.disk()
    with suppress(OSError):
        (disk / "others").write_bytes(bytes(2 * 65536))
    return compiled(world, None, "-o", str(disk / "made" / "bundle"))


def _filling(world: World) -> list[str]:
    return compiled(world, None, "-o", str(world.disk() / "made" / "bundle"))


def _small_cache(size: str) -> Arguments:
    def arguments(world: World) -> list[str]:
        world.environment["EDGEOPT_CACHE_DIR"] = str(world.disk(options=f"size={size}"))
        return compiled(world)

    return arguments


def _cache_below_a_file(world: World) -> list[str]:
    world.environment["EDGEOPT_CACHE_DIR"] = str(world.file("taken", "") / "cache")
    return compiled(world)


def _nothing_like(command: str) -> Arguments:
    return lambda world: [command, str(world.folder)]


SMALL = ("--factory", "bad_nets:small")
X = ("--input", "x:float32[1,20]")

CASES = (
    # The model file
    Case(
        name="model: no such file",
        arguments=lambda w: compiled(w, w.folder / "modle.pt2"),
        says=(r"does not exist", r"modle\.pt2"),
        before_work=True,
    ),
    Case(name="model: a folder", arguments=lambda w: compiled(w, w.folder), says=("is a folder",), before_work=True),
    Case(name="model: an empty file", arguments=_file(b""), says=("is empty", r"model\.pt"), before_work=True),
    Case(
        name="model: text",
        arguments=_file("hello, world\n" * 20),
        says=("not a model file that edgeopt knows", r"model\.pt", "torch.export archive", "--factory"),
        before_work=True,
    ),
    Case(
        name="model: safetensors",
        arguments=_file(b"\x10\0\0\0\0\0\0\0" + b'{"w":{}}' + bytes(90)),
        says=("a safetensors file", "torch.save"),
        before_work=True,
    ),
    Case(
        name="model: a .pt2 cut in half",
        arguments=_cut,
        says=(r"cut short|cannot be read", r"model\.pt2"),
        before_work=True,
    ),
    Case(
        name="model: a pickle with code",
        arguments=lambda w: compiled(w, w.file("model.pt", hostile.saved({"w": hostile.Payload(w.marker)}))),
        says=(r"would import .*mkdir", "Nothing was loaded", "--trust-model"),
    ),
    Case(
        name="model: a plain pickle with code",
        arguments=lambda w: compiled(w, w.file("model.pt", pickle.dumps(hostile.Payload(w.marker), protocol=2))),
        says=(r"would import .*mkdir|cannot be read",),
    ),
    Case(
        name="model: a pickled nn.Module, without --trust-model",
        arguments=_pickled,
        says=(r"would import .*bad_nets\.Branches", "--trust-model", "--factory"),
    ),
    *(
        Case(
            name=f"model: a .pt2 with {form}",
            arguments=_archive(form),
            says=(match, "--trust-model", "Nothing was loaded|nothing was loaded"),
        )
        for form, (_, match) in hostile.ARCHIVES.items()
    ),
    # State dict and factory
    Case(
        name="state dict without --factory",
        arguments=_weights(bad_nets.small),
        says=("weights only", "--factory package.module:callable", "--input"),
    ),
    Case(
        name="state dict without --input",
        arguments=_weights(bad_nets.small, *SMALL),
        says=("does not say what its inputs", r"--input 'input:float32\["),
    ),
    Case(
        name="state dict of another factory: keys",
        arguments=_renamed,
        says=("does not match the factory", r"Missing: 0\.bias", "Unexpected: extra", "--factory-arg"),
    ),
    Case(
        name="state dict of another factory: shapes",
        arguments=_weights(bad_nets.small, *SMALL, *X, "--factory-arg", "width=16"),
        says=(r"0\.weight is \[8, 20\], the factory's is \[16, 20\]",),
    ),
    Case(
        name="factory that is not there",
        arguments=_weights(bad_nets.small, "--factory", "my_netz:make", *X),
        says=("cannot be imported: No module named 'my_netz'", "my_netz:make"),
    ),
    Case(
        name="factory argument without a value",
        arguments=_weights(bad_nets.small, *SMALL, *X, "--factory-arg", "width"),
        says=("has no value", "'width'", "name=value"),
        before_work=True,
    ),
    Case(
        name="model that torch.export cannot take",
        arguments=_weights(bad_nets.branches, "--factory", "bad_nets:branches", *X),
        says=(
            "torch.export cannot take this model",
            r"bad_nets\.py:\d+: if x\.sum\(\) > 0:",
            "Two ways out: rewrite",
            "export the model yourself",
        ),
    ),
    # --input
    Case(
        name="--input that cannot be read",
        arguments=lambda w: compiled(w, None, "--input", "x=float32(1,20)"),
        says=(r"'x=float32\(1,20\)'", r"NAME:DTYPE\[d0,d1,\.\.\.\]"),
        before_work=True,
    ),
    Case(
        name="--input with a dimension that is none",
        arguments=lambda w: compiled(w, None, "--input", "input:float32[1,-20]"),
        says=("bad dimension", "'-20'"),
        before_work=True,
    ),
    Case(
        name="--input with an unknown dtype",
        arguments=lambda w: compiled(w, None, "--input", "input:fp32[1,20]"),
        says=("dtype that edgeopt does not know", "fp32", "float32"),
        before_work=True,
    ),
    Case(
        name="--input of another shape than the archive's",
        arguments=lambda w: compiled(w, None, "--input", "input:float32[1,21]"),
        says=("does not fit the model", r"input:float32\[1,21\]", r"input:float32\[batch,20\]"),
    ),
    Case(
        name="--input of another dtype than the archive's",
        arguments=lambda w: compiled(w, None, "--input", "input:int64[1,20]"),
        says=("does not fit the model", "int64", "float32"),
    ),
    Case(
        name="--input that the module itself refuses",
        arguments=_weights(bad_nets.small, *SMALL, "--input", "x:float32[1,21]"),
        says=("itself fails on such inputs", r"x of shape \(1, 21\)", "Check --input"),
    ),
    # Data
    Case(
        name="data: no such file",
        arguments=lambda w: compiled(w, data=w.folder / "tset.npz"),
        says=("no such data", r"tset\.npz", "digits"),
        before_work=True,
    ),
    Case(
        name="data: not an .npz",
        arguments=lambda w: compiled(w, data=w.file("data.npz", "x,y\n1,2\n")),
        says=("no readable .npz", r"data\.npz", r"np\.savez"),
    ),
    Case(
        name="data: a folder without a manifest",
        arguments=_empty_folder,
        says=("has no manifest.yaml", "guesses no preprocessing"),
        before_work=True,
    ),
    Case(
        name="data: of another shape",
        arguments=_data(x=lambda: np.zeros((100, 21), np.float32)),
        says=(r"samples of \[21\], where the model takes \[20\]",),
    ),
    Case(
        name="data: of another dtype",
        arguments=_data(x=lambda: np.zeros((100, 20))),
        says=("float64, where the model takes float32", "astype"),
    ),
    Case(
        name="data: a label outside the classes",
        arguments=_data(y=lambda: np.arange(100) % 3),
        says=("label 2 at sample 2", "0 to 1"),
    ),
    Case(
        name="data: labels that are no integers",
        arguments=_data(y=lambda: np.full(100, 0.5, np.float32)),
        says=("label", "float32"),
    ),
    Case(
        name="data: another number of labels",
        arguments=_data(y=lambda: np.zeros(99, np.int64)),
        says=("99", "100"),
    ),
    Case(
        name="data: an empty split",
        arguments=_data(x=lambda: np.zeros((0, 20), np.float32), y=lambda: np.zeros(0, np.int64)),
        says=("Empty split: test has no samples", r"0 samples in x of data\.npz", "Give the labelled samples"),
    ),
    Case(
        name="data: too few to split",
        arguments=_data(x=lambda: np.eye(2, 20, dtype=np.float32), y=lambda: np.arange(2)),
        says=("Empty split: there are too few samples", "2 distinct samples"),
    ),
    Case(name="data: NaN in a sample", arguments=_with_nan, says=("not finite", r"nan at \[41, 3\]")),
    Case(
        name="data: calibration samples that are all the same",
        arguments=lambda w: compiled(w, w.model, data=w.npz(x_calibration=np.full((50, 20), 1e-3, np.float32))),
        says=("does not agree with PyTorch", "The data may be why: Calibration input .* is constant", "0.001"),
    ),
    Case(
        name="data: an unknown array",
        arguments=_data(x_calib=lambda: np.zeros((9, 20), np.float32)),
        says=("unknown array", "'x_calib'", "Did you mean x_calibration"),
    ),
    Case(
        name="data: pickled objects",
        arguments=_data(x=lambda: np.array([None, "a"], object)),
        says=("pickled Python objects", "could run code"),
    ),
    Case(
        name="NaN in the model's outputs",
        arguments=_nan_model,
        says=("outputs hold NaN or infinite values", r"output 0 for sample \d+", "repair the model"),
    ),
    Case(
        name="NaN in the outputs on one test sample",
        arguments=_nan_on_one_sample,
        says=("outputs hold NaN or infinite values", "output 0 for sample 17", "test split"),
    ),
    # Recipe and target
    Case(
        name="recipe: unknown key",
        arguments=_set("steps.quantize.obsrver=histogram"),
        says=(r"unknown key steps\.quantize\.obsrver; nearest valid key: observer",),
        before_work=True,
    ),
    Case(
        name="recipe: unknown value",
        arguments=_set("steps.quantize.observer=median"),
        says=(r"steps\.quantize\.observer is 'median'; choose .*histogram",),
        before_work=True,
    ),
    Case(
        name="recipe: an override without a value",
        arguments=_set("seed"),
        says=("'seed'", "KEY=VALUE"),
        before_work=True,
    ),
    Case(
        name="recipe: unknown name",
        arguments=lambda w: compiled(w, None, "-r", "int8-pqt"),
        says=("'int8-pqt'", "nearest first: int8-ptq"),
        before_work=True,
    ),
    Case(
        name="recipe: unknown step in a file",
        arguments=_recipe_file,
        says=(r"mine\.yaml", "quantise"),
        before_work=True,
    ),
    Case(
        name="recipe: int8 without data",
        arguments=lambda w: compiled(w, None, "-r", "int8-ptq", data=""),
        says=("never calibrates on random tensors", "--data"),
        before_work=True,
    ),
    Case(
        name="training: no train split",
        arguments=lambda w: compiled(w, None, "-r", "int8-qat"),
        says=("qat needs a train split", "there is none", "x_train and y_train", "'int8-ptq'"),
    ),
    Case(
        name="training: no labels, no teacher, no loss",
        arguments=_training("steps.qat.training.distillation=null", labelled=False),
        says=("nothing to train on", "no labels", "distillation"),
    ),
    Case(
        name="training: a frozen model",
        arguments=_training(net=_frozen),
        says=("model is frozen", "none of its parameters takes gradients", "'int8-ptq'"),
    ),
    Case(
        name="training: a loss that is not there",
        arguments=_training("steps.qat.training.loss=no_such.module:loss"),
        says=("loss cannot be imported", r"no_such\.module:loss", "package.module:callable"),
    ),
    Case(
        name="training: a loss that is no number",
        arguments=_training("steps.qat.training.loss=bad_nets:vector_loss"),
        says=("bad_nets:vector_loss does not return a scalar", r"a tensor \[64, 2\]"),
    ),
    Case(
        name="training: a loss that is NaN",
        arguments=_training("steps.qat.training.loss=bad_nets:nan_loss"),
        says=("broke off before the first epoch", "nan in epoch 1, step 1", "learning_rate"),
    ),
    Case(
        name="training: a precision that the device has not",
        arguments=_training("steps.qat.training.precision=16-mixed"),
        says=("cpu here has no 16-mixed", "precision=32-true"),
    ),
    Case(
        name="training: more warm-up than epochs",
        arguments=_training("steps.qat.training.warmup_epochs=9"),
        says=(r"steps\.qat\.training\.warmup_epochs is 9", "only 6 epochs"),
        before_work=True,
    ),
    Case(
        name="training: observed ranges that never freeze",
        arguments=_training("steps.qat.scales=observed"),
        says=(r"steps\.qat\.freeze_ranges_after is missing", "before the last of 6 epochs"),
        before_work=True,
    ),
    Case(
        name="device: a kind that there is none of",
        arguments=lambda w: compiled(w, w.model, "--device", "qmu:cortex-a53"),
        says=("no device of that kind", "'qmu:cortex-a53'", "Known: local, qemu:…"),
        before_work=True,
    ),
    Case(
        name="device: a CPU that is not emulated",
        arguments=lambda w: compiled(w, w.model, "--numerics", "qemu:cortex-a54"),
        says=("No CPU of that name is emulated", "Known: qemu:cortex-a53"),
        before_work=True,
    ),
    Case(
        name="device: outputs compared on no data",
        arguments=lambda w: [
            "compile",
            str(w.model),
            "--target",
            "local",
            "-o",
            str(w.output),
            "--numerics",
            "qemu:max",
        ],
        says=("compared on real samples", "Give --data"),
        before_work=True,
    ),
    Case(
        name="recipe: quantize on an ONNX file",
        arguments=lambda w: compiled(w, w.file("m.onnx", hostile.onnx_model().SerializeToString()), "-r", "int8-ptq"),
        says=("quantize works on the PyTorch graph", "torch.export archive"),
        before_work=True,
    ),
    Case(
        name="target: unknown",
        arguments=lambda w: compiled(w, target="jetsn"),
        says=("'jetsn'", "nearest first: jetson", "raspberry-pi-5"),
        before_work=True,
    ),
    Case(
        name="target: a page, and no Chromium",
        arguments=lambda w: _without_chromium(w, compiled(w, target="browser-wasm")),
        says=("EDGEOPT_CHROMIUM names no program", "'no-such-chromium'", "path of a Chromium"),
        before_work=True,
    ),
    Case(
        name="target and recipe in conflict",
        arguments=lambda w: compiled(w, None, "-r", "fp16", target="raspberry-pi-4"),
        says=("'fp16' cannot be carried out for raspberry-pi-4", "to advantage", "use the recipe"),
        before_work=True,
    ),
    # ONNX
    Case(
        name="ONNX: external data in ..",
        arguments=_onnx("../secret"),
        says=("outside its own folder; it was not read", r"\.\./secret"),
    ),
    Case(
        name="ONNX: external data at an absolute path",
        arguments=_onnx("/etc/hostname"),
        says=("outside its own folder", "/etc/hostname"),
    ),
    Case(
        name="ONNX: external data through a link",
        arguments=_onnx("w.bin", link=True),
        says=("outside its own folder", r"w\.bin"),
    ),
    Case(name="ONNX: external data that is missing", arguments=_onnx("w.bin"), says=("not there", r"w\.bin", "Copy")),
    Case(name="ONNX: an invalid graph", arguments=_bad_onnx, says=("not valid ONNX", "nowhere")),
    # Output
    Case(
        name="output: below a file",
        arguments=_output(lambda w: w.file("taken", "") / "bundle"),
        says=("below a file", "taken", "-o"),
        before_work=True,
    ),
    Case(
        name="output: a file",
        arguments=_output(lambda w: w.file("taken", "mine")),
        says=("is a file", "taken", "-o"),
        before_work=True,
    ),
    Case(
        name="output: a folder that is no bundle",
        arguments=_not_a_bundle,
        says=("is not an edgeopt bundle", "new folder with -o"),
        before_work=True,
        kept=("thesis.txt",),
    ),
    Case(
        name="output: on a read-only disk",
        arguments=_output(lambda w: w.disk(options="ro") / "bundle"),
        says=("cannot be written", "disk: Read-only", "-o"),
        before_work=True,
    ),
    Case(
        name="output: where nobody can write",
        arguments=_output(lambda _: Path("/proc/edgeopt/bundle")),
        says=("cannot be written", "/proc", "-o"),
        before_work=True,
    ),
    Case(name="output: a full disk", arguments=_full, says=("full", "disk", "Free some space"), before_work=True),
    Case(name="output: a disk that fills up", arguments=_filling, says=("full", "disk", "Free some space")),
    Case(
        name="cache: below a file",
        arguments=_cache_below_a_file,
        says=("cache", "taken", "EDGEOPT_CACHE_DIR"),
        before_work=True,
    ),
    Case(
        name="cache: on a full disk",
        arguments=_small_cache("16k"),
        says=("disk is full", "No space left", "cache: .*disk", "EDGEOPT_CACHE_DIR"),
    ),
    Case(
        name="cache: on a disk that fills up in native code",
        arguments=_small_cache("128k"),
        says=("disk is full", "cache: .*disk", "EDGEOPT_CACHE_DIR"),
    ),
    # Other commands, and usage
    *(
        Case(name=f"{command}: no bundle", arguments=_nothing_like(command), says=("bundle", "given"))
        for command in ("inspect", "verify", "bench")
    ),
    Case(name="usage: no target", arguments=lambda w: ["compile", str(w.model)], says=("--target",), code=2),
    Case(
        name="usage: unknown option",
        arguments=lambda w: compiled(w, None, "--quantise"),
        says=("--quantise",),
        code=2,
    ),
    Case(
        name="usage: unknown command", arguments=lambda w: ["complie", str(w.model)], says=("Nearest: compile",), code=2
    ),
    Case(
        name="usage: a seed that is no number",
        arguments=lambda w: compiled(w, None, "--seed", "x"),
        says=("--seed", "'x'"),
        code=2,
    ),
)


def made_beside(world: World) -> list[str]:
    """What the run left where its bundle was to be, beside what the case put there."""
    found = [path for root in (world.output.parent, world.folder / "disk" / "made") for path in root.rglob("*")]
    found += [path for path in world.folder.rglob(".*") if ".partial-" in path.name or ".probe-" in path.name]
    return sorted(str(path) for path in found if os.path.lexists(path))
