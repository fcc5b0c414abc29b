"""What differs between two targets."""

from edgeopt.targets.compare import compare_targets
from edgeopt.targets.load import find_target, list_targets


def test_a_target_does_not_differ_from_itself():
    for target in list_targets():
        found = compare_targets(target, target)
        assert (found.fields, found.only_a, found.only_b) == ((), (), ())


def test_two_releases_differ_in_what_they_bring():
    found = compare_targets(find_target("jetson@jetpack-6.2"), find_target("jetson@jetpack-7.2"))
    fields = {one.field: (one.a, one.b) for one in found.fields}
    assert fields["release.tensorrt"] == ("10.3.0", "10.16.2")
    assert fields["runtimes.tensorrt.versions"] == ("==10.3.*", "==10.16.*")
    assert fields["release.l4t"] == (["36.4.3", "36.4.4"], ["39.2"])
    assert "isa.arch" not in fields
    assert not any("6 cores" in source.fact for source in (*found.only_a, *found.only_b))
    assert any("TensorRT 10.16.2" in source.fact for source in found.only_b)


def test_what_only_one_has_stands_beside_none():
    found = compare_targets(find_target("x86-vnni"), find_target("rtx-ada"))
    fields = {one.field: (one.a, one.b) for one in found.fields}
    assert fields["compute_capability"] == (None, 89)
    assert fields["runtimes.onnxruntime.dialect"] == ("ort-x86", None)


def test_it_is_the_same_from_the_other_side():
    a, b = find_target("raspberry-pi-4"), find_target("raspberry-pi-5")
    there, back = compare_targets(a, b), compare_targets(b, a)
    assert {(one.field, str(one.a), str(one.b)) for one in there.fields} == {
        (one.field, str(one.b), str(one.a)) for one in back.fields
    }
    assert (there.only_a, there.only_b) == (back.only_b, back.only_a)
