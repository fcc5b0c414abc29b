"""The applications' sources: parsed by grammars, and the Android one compiled and its own logic run on a JVM."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from sample_bundle import HEIGHT, WIDTH, weights
from sample_inputs import phone_bundle

from edgeopt.core.spec import TensorSpec
from edgeopt.samples.write import write_sample

KOTLIN = Path(__file__).parent / "kotlin"
JARS = [
    Path("/usr/share/java") / name for name in ("com.android.json.jar", "kotlin-stdlib.jar", "kotlin-stdlib-jdk7.jar")
]


def grammar(language):
    tree_sitter = pytest.importorskip("tree_sitter", reason="pip install 'edgeopt[test]'")
    module = pytest.importorskip(f"tree_sitter_{language}", reason="pip install 'edgeopt[test]'")
    return tree_sitter.Parser(tree_sitter.Language(module.language()))


def problems(parser, source: bytes):
    def walk(node):
        if node.type == "ERROR" or node.is_missing:
            yield f"line {node.start_point[0] + 1}: {node.text[:60]!r}"
        for child in node.children:
            yield from walk(child)

    return list(walk(parser.parse(source).root_node))


@pytest.mark.parametrize(
    ("platform", "language", "patterns", "count"),
    [("android", "kotlin", ("*.kt", "*.kts"), 9), ("ios", "swift", ("*.swift",), 6)],
)
def test_every_source_parses_without_an_error(tmp_path, platform, language, patterns, count):
    parser = grammar(language)
    folder = write_sample(phone_bundle(tmp_path / "b"), platform, tmp_path / "app").directory
    files = [path for pattern in patterns for path in folder.rglob(pattern)]
    assert len(files) == count
    assert {path.name: problems(parser, path.read_bytes()) for path in files} == {path.name: [] for path in files}


@pytest.mark.parametrize(("language", "broken"), [("kotlin", b"fun f( {"), ("swift", b"func f( {")])
def test_the_parser_finds_what_is_broken(language, broken):
    assert problems(grammar(language), broken)


@pytest.fixture(scope="module")
def jar(tmp_path_factory):
    """The Android sources, compiled against the shapes of Android's and ONNX Runtime's classes."""
    if shutil.which("kotlinc") is None or not all(path.is_file() for path in JARS):
        pytest.skip("apt-get install kotlin libandroid-json-java default-jdk-headless")
    folder = tmp_path_factory.mktemp("kotlin")
    app = write_sample(phone_bundle(folder / "b"), "android", folder / "app").directory
    sources = [str(path) for root in (app / "app/src", KOTLIN) for path in sorted(root.rglob("*.kt"))]
    made = folder / "check.jar"
    command = ["kotlinc", "-cp", ":".join(map(str, JARS)), *sources, "-d", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=550)
    assert done.returncode == 0, [line for line in done.stderr.splitlines() if "error" in line]
    return made


def run(jar, *arguments):
    command = ["java", "-cp", ":".join(map(str, [jar, *JARS])), "check.CheckKt", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout, done.stderr


def raw(path, array):
    path.write_bytes(np.ascontiguousarray(array).tobytes())
    return path


@pytest.mark.long
@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("kind", ["NCHW", "NHWC", "grey", "uint8"])
def test_the_android_app_reads_prepares_and_checks_as_the_bundle_says(tmp_path, jar, kind, batch):
    layout = "NHWC" if kind == "NHWC" else "NCHW"
    channels = 1 if kind == "grey" else 3
    shape = (HEIGHT, WIDTH, channels) if layout == "NHWC" else (channels, HEIGHT, WIDTH)
    dtype = "uint8" if kind == "uint8" else "float32"
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3))
    argb = (255 << 24) | (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]
    mean, std = ((0.2, 0.4, 0.6), (0.5, 2.0, 0.25)) if channels == 3 else ((0.3,), (0.7,))
    record = {"dtype": dtype, "shape": ("batch", *shape), "mean": mean, "std": std}
    engine = {"inputs": (TensorSpec(name="x", dtype=dtype, shape=(batch or "batch", *shape)),)}
    bundle = phone_bundle(tmp_path / "b", batch, layout, record=record, engine={"options": {"threads": 3}} | engine)
    app = write_sample(bundle, "android", tmp_path / "app").directory / "app/src/main/assets/bundle"
    out = tmp_path / "out.bin"
    code, said, failed = run(
        jar,
        app,
        raw(tmp_path / "pixels", argb.astype("<u4")),
        raw(tmp_path / "weights", np.concatenate([weights()[0].ravel(), weights()[1]])),
        out,
    )
    assert code == 0, failed
    image = pixels if channels == 3 else grey(pixels)[..., None]
    # Raw pixels for an integer input; for a float one the contract, here in float64.
    values = image if dtype == "uint8" else (image * (1 / 255) - np.array(mean)) / np.array(std)
    expected = values if layout == "NHWC" else values.transpose(2, 0, 1)
    actual = np.frombuffer(out.read_bytes(), np.dtype(dtype).newbyteorder("<")).reshape(shape)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)
    assert f"engine model.onnx batch {batch or 1} threads 3" in said
    assert "classes [cat, dog, owl]" in said
    # The app's self-test passes on the bundle's own model, and not on one that is off by one or gives NaN.
    assert "spoilt 0.0: PASS\nspoilt 1.0: FAIL\nspoilt NaN: FAIL" in said
    assert "[dog: 3.000, cat: 0.250]" in said


def grey(pixels):
    from PIL import Image

    return np.asarray(Image.fromarray(pixels.astype("uint8")).convert("L")).astype(int)
