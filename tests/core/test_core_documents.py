"""YAML read strictly: only plain values come in, and what is written is read back the same."""

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from edgeopt.core.documents import parse_yaml, write_yaml
from edgeopt.core.errors import RecipeError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
tricky = st.sampled_from(
    ["no", "1e-3", "010", "0x1F", "1:30", "~", "null", "", "-", "<<", "=", "2026-01-01", "1_000", ".5"]
)
documents = st.recursive(
    scalars | tricky,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | tricky, inner, max_size=4),
    max_leaves=12,
)


def parse(text):
    return parse_yaml(text, where="It", error=RecipeError)


@given(document=documents)
@example(document={"\x85": ["a\u2028b", "\u2029", "\x85 "]})
def test_what_is_written_is_read_back_the_same(document):
    assert parse(write_yaml(document)) == document


@given(document=documents)
def test_other_tools_read_the_same_from_what_is_written(document):
    assert yaml.safe_load(write_yaml(document)) == document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-2.5E+3", -2500.0),
        (".5", 0.5),
        ("7", 7),
        ("-7", -7),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("010", "010"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        (".inf", ".inf"),
        (".", "."),
        ("e5", "e5"),
    ],
)
def test_plain_text_is_read_as_yaml_1_2_reads_it(text, value):
    got = parse(text)
    assert got == value
    assert type(got) is type(value)


def test_the_error_names_the_place():
    with pytest.raises(RecipeError, match=r"It is not the YAML that edgeopt reads: .* at line 3, column 1"):
        parse("a: 1\nb: [\n")
