"""The one JSON object of a reply."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.prompts.objects import parse_object


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ('{"a": "b"}', {"a": "b"}),
        ('  {"a": {"b": 1}}\n', {"a": {"b": 1}}),
        ('```json\n{"a": "b"}\n```', {"a": "b"}),
        ('Here it is: {"a": "b"} I hope it helps {', {"a": "b"}),
        ('{"a": "first"} {"a": "second"}', {"a": "first"}),
    ],
)
def test_an_object_is_found_among_words(reply, found):
    assert parse_object(reply) == (found, "")


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("", "it has no JSON object"),
        ("[1, 2]", "it has no JSON object"),
        ('{"a": "b"', "it is not JSON (Expecting ',' delimiter at character 10)"),
        ("{a}", "it is not JSON (Expecting property name enclosed in double quotes at character 2)"),
        ('{"a": ' + "9" * 5000 + "}", "it is not JSON (ValueError)"),
        ('{"a": ' + "[" * 100_000, "it is not JSON (RecursionError)"),
    ],
)
def test_what_is_wrong_is_said(reply, problem):
    assert parse_object(reply) == (None, problem)


@given(st.text())
def test_any_reply_is_read_or_refused(reply):
    found, problem = parse_object(reply)
    assert (found is None) == bool(problem)


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none()), st.text().filter(lambda t: "{" not in t))
def test_an_object_comes_back_as_it_was_written(values, around):
    assert parse_object(around + json.dumps(values) + around) == (values, "")
