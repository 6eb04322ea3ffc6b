"""Texts that are no manifest."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from page4d.system.strict_json import DEEPEST, LARGEST, require_strict
from tests.support.examples import examples
from tests.support.exports import load_refused

TEXTS = {
    "too large": b" " * (LARGEST + 1),
    "nested too deeply": b'{"format": 1, "a": ' + b"[" * 100_000,
    "key twice: format": b'{"format": 1, "format": 1}',
    "more than 64 bits": b'{"format": 1, "a": ' + b"9" * 5000 + b"}",
    "too large$": b'{"format": 1, "a": 1e400}',
    "NaN is no number": b'{"format": 1, "a": NaN}',
    "damaged": b"\xef\xbb\xbf{}",
    "damaged: ": b'{"format": 1, "a": "\\ud800"}',
}


@pytest.mark.parametrize("words", TEXTS)
def test_texts_that_are_no_manifest(folder, words):
    (folder / "manifest.json").write_bytes(TEXTS[words])
    error = load_refused(folder, "manifest.json")
    assert words.strip("$") in str(error)


@examples(100)
@given(st.integers(1, 2 * DEEPEST), st.booleans(), st.sampled_from(["", "1", "{}", '"["']))
def test_depth_is_counted_in_objects_and_arrays(depth, is_object, inside):
    opening, closing = ('{"a":', "}") if is_object else ("[", "]")
    text = (opening * depth + (inside or "0") + closing * depth).encode()
    if depth + (inside == "{}") <= DEEPEST:
        require_strict(text)
    else:
        with pytest.raises(ValueError, match="nested too deeply"):
            require_strict(text)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@examples(200)
@given(JSON)
def test_plain_documents_are_strict(document):
    require_strict(json.dumps(document).encode())
