"""The graph carries what calibration saw."""

import numpy as np

from edgeopt.graph.calibration import calibrated_tensors


def test_every_quantized_activation_has_its_range_and_the_scale_covers_it(case):
    tensors = calibrated_tensors(case("mlp").int8_path)
    assert len({tensor.name for tensor in tensors}) == len(tensors) >= 3
    for tensor in tensors:
        assert tensor.low <= tensor.high
        widest = max(abs(tensor.low), abs(tensor.high))
        assert np.isclose(tensor.scale * 127, widest, rtol=1e-2)


def test_a_float_graph_has_none(case):
    assert calibrated_tensors(case("mlp").float_path) == []
