"""A target on one release of its system: the matrix, what it changes, and pairs that do not exist."""

import re

import pytest
from packaging.specifiers import SpecifierSet

from edgeopt.core.errors import TargetError
from edgeopt.targets import releases
from edgeopt.targets.load import dump_target, find_target, list_targets, read_target
from edgeopt.targets.releases import releases_of

JETSONS = [target for target in list_targets() if target.name.startswith("jetson")]
PAIRS = [(target.name, release) for target in JETSONS for release in releases_of(target)]


def test_the_matrix_is_this():
    assert {target.name: releases_of(target) for target in JETSONS} == {
        "jetson-agx-orin": ("jetpack-6.1", "jetpack-6.2", "jetpack-7.2", "jetpack-7.2.2"),
        "jetson-orin-nano": ("jetpack-6.1", "jetpack-6.2", "jetpack-7.2"),
        "jetson-orin-nx": ("jetpack-6.1", "jetpack-6.2", "jetpack-7.2"),
        "jetson-thor": ("jetpack-7.1", "jetpack-7.2", "jetpack-7.2.2"),
    }


def test_every_board_of_the_file_is_a_target_and_every_fact_has_a_source():
    names = {target.name for target in list_targets()}
    for known in releases._known():
        assert set(known.targets) <= names
        assert set(known.dla) <= set(known.targets)
        assert all(re.fullmatch(r"\d+\.\d+(\.\d+)?", number) for number in known.l4t)
        assert not any("http" in source.source for source in known.sources)


@pytest.mark.parametrize(("target", "release"), PAIRS, ids="@".join)
def test_a_pinned_target_asks_for_one_tensorrt_and_reads_back_equal(target, release, tmp_path):
    pinned, free = find_target(f"{target}@{release}"), find_target(target)
    (rules,) = pinned.runtimes
    assert pinned.release.name == release
    assert SpecifierSet(rules.versions).contains(pinned.release.tensorrt)
    assert SpecifierSet(free.runtimes[0].versions).contains(pinned.release.tensorrt)
    assert pinned.opset <= rules.opset_max == pinned.release.opset_max
    assert set(free.sources) < set(pinned.sources)
    file = tmp_path / "target.yaml"
    file.write_text(dump_target(pinned))
    assert read_target(file) == pinned


def test_an_alias_can_be_pinned():
    assert find_target("jetson@jetpack-6.2") == find_target("jetson-orin-nano@jetpack-6.2")


def test_dla_is_there_where_the_releases_tensorrt_builds_for_it():
    assert {
        f"{t}@{r}": find_target(f"{t}@{r}").dla_cores for t, r in PAIRS if t in ("jetson-agx-orin", "jetson-orin-nx")
    } == {
        "jetson-agx-orin@jetpack-6.1": 2,
        "jetson-agx-orin@jetpack-6.2": 2,
        "jetson-agx-orin@jetpack-7.2": 0,
        "jetson-agx-orin@jetpack-7.2.2": 2,
        "jetson-orin-nx@jetpack-6.1": 2,
        "jetson-orin-nx@jetpack-6.2": 2,
        "jetson-orin-nx@jetpack-7.2": 0,
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "jetson-thor@jetpack-6.2",
            r"does not run on jetson-thor: it is for jetson-orin-nano.*nearest first: jetpack-7",
        ),
        ("jetson@jetpack-6.0", r"jetpack-6\.0 brings TensorRT 8\.6\.2; edgeopt writes for >=10\.3.*jetpack-6\.1"),
        (
            "jetson@jetpack-9",
            r"no release of that name\. Received: 'jetson-orin-nano@jetpack-9'\. Known for jetson-orin-nano",
        ),
        ("local@jetpack-6.2", r"'local' comes in no releases.*Name it alone: local"),
        ("jetson@", r"no release of that name"),
        ("jetsn@jetpack-6.2", r"no target of that name.*nearest first: jetson, "),
    ],
)
def test_what_does_not_exist_says_what_does(name, message):
    with pytest.raises(TargetError, match=message):
        find_target(name)


def test_a_name_with_a_release_needs_the_release(tmp_path):
    text = dump_target(find_target("jetson@jetpack-6.2"))
    file = tmp_path / "target.yaml"
    file.write_text(text.replace("name: jetson-orin-nano@jetpack-6.2", "name: jetson-orin-nano"))
    with pytest.raises(TargetError, match="a name has an @ exactly where a release is given"):
        read_target(file)
