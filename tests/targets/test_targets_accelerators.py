"""Accelerators are read from the kernel's own lists."""

import pytest

from edgeopt.targets.accelerators import find_accelerators


@pytest.fixture
def node(tmp_path):
    """Add a device node with a vendor to a sysfs of our own."""

    def add(place, vendor):
        folder = tmp_path / place / "device"
        folder.mkdir(parents=True)
        if vendor is not None:
            (folder / "vendor").write_text(vendor)

    return add


def test_a_render_node_of_intel_is_a_gpu_and_an_accel_node_an_npu(node, tmp_path):
    assert find_accelerators(tmp_path) == frozenset()
    node("class/drm/renderD128", "0x8086\n")
    assert find_accelerators(tmp_path) == {"intel-gpu"}
    node("class/accel/accel0", "0x8086\n")
    assert find_accelerators(tmp_path) == {"intel-gpu", "intel-npu"}


@pytest.mark.parametrize("vendor", ["0x10de\n", "", None])
def test_a_node_of_another_vendor_or_of_none_is_not_intels(node, tmp_path, vendor):
    node("class/drm/renderD128", vendor)
    node("class/accel/accel0", vendor)
    assert find_accelerators(tmp_path) == frozenset()


def test_a_screen_alone_is_no_gpu_to_compute_on(node, tmp_path):
    node("class/drm/card0", "0x8086\n")
    assert find_accelerators(tmp_path) == frozenset()
