"""Errors say what failed, what was received and what to do; measurements have a value or a reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.core import errors
from edgeopt.core.errors import EdgeOptError, UnsafeModelError, nearest_first
from edgeopt.core.measurement import Measurement, not_measured


def test_an_error_reads_as_sentences():
    error = EdgeOptError("It failed.", got="7", fix="Give 8.")
    assert str(error) == "It failed. Received: 7. Give 8."
    assert (error.what, error.got, error.fix) == ("It failed.", "7", "Give 8.")


def test_what_was_not_received_is_not_shown_and_a_falsy_value_is():
    assert str(EdgeOptError("It failed.")) == "It failed."
    assert str(EdgeOptError("It failed.", got=0)) == "It failed. Received: 0."


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n.endswith("Error")])
def test_every_error_is_the_users_and_has_one_root(name):
    kind = getattr(errors, name)
    assert issubclass(kind, EdgeOptError)
    assert kind.exit_code == 1
    assert kind.__doc__


def test_an_unsafe_model_is_a_model_error():
    assert issubclass(UnsafeModelError, errors.ModelError)


@given(name=st.text(max_size=10), choices=st.sets(st.text(min_size=1, max_size=10), min_size=1, max_size=8))
def test_nearest_first_keeps_every_choice_and_puts_an_exact_one_first(name, choices):
    assert sorted(nearest_first(name, choices)) == sorted(choices)
    if name.lower() == name and name in choices and not any(c != name and c.lower() == name for c in choices):
        assert nearest_first(name, choices)[0] == name


def test_a_measurement_has_a_value_or_a_reason():
    assert not_measured("latency_p50_ms", "ms", "no device", batch=1).conditions == {"batch": 1}
    with pytest.raises(ValueError, match="latency_p50_ms: a measurement has either a value or a reason"):
        Measurement(name="latency_p50_ms", value=None, unit="ms")
    with pytest.raises(ValueError, match="either a value or a reason"):
        Measurement(name="latency_p50_ms", value=1.0, unit="ms", reason="none")
