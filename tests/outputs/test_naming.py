from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textseg.outputs.naming import MAX_SLUG_BYTES, file_name, file_names

ODD = [
    "../../etc/passwd",
    "C:\\windows",
    "con",
    "lpt1",
    "",
    " ",
    ".",
    "left\x00kidney",
    "肝臓",
    "Niere, links",
    "x" * 400,
    "\udcff",
    "mask",
]


def test_plain_words_keep_their_name():
    assert file_name("left kidney") == "left_kidney"
    assert file_name("vertebra l3") == "vertebra_l3"


def test_prompts_that_read_alike_get_names_of_their_own():
    prompts = ["left kidney", "left-kidney", "left/kidney", "Left Kidney", "left_kidney"]
    prompts += ["left  kidney"]
    names = file_names(prompts)
    assert list(names) == prompts
    assert len({name.casefold() for name in names.values()}) == len(prompts)


@pytest.mark.parametrize("prompt", ODD)
def test_odd_prompts_get_a_safe_name_with_a_hash(prompt):
    name = file_name(prompt)
    assert re.fullmatch(r"[a-z0-9_]+-[0-9a-f]{8}", name) or prompt == "mask" == name
    assert len(name) <= MAX_SLUG_BYTES + 9


@given(st.lists(st.text(max_size=80), max_size=12))
def test_names_are_safe_distinct_and_independent_of_the_other_prompts(prompts):
    names = file_names(prompts)
    assert list(names) == list(dict.fromkeys(prompts))
    assert len(set(names.values())) == len(names)
    for prompt, name in names.items():
        assert re.fullmatch(r"[a-z0-9][a-z0-9_]*(-[0-9a-f]{8})?", name)
        assert name == file_name(prompt)
