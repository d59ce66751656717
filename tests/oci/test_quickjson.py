"""quickjson gives what json gives."""

import json
import math
import subprocess
import sys
from signal import Signals

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry_oci.runtime import quickjson

pytestmark = pytest.mark.unit

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_values)
def test_what_is_written_is_read_again_by_both(value: object) -> None:
    """Our text is json's, and json's is ours."""
    assert json.loads(quickjson.dumps(value)) == value
    assert quickjson.loads(json.dumps(value)) == value
    assert quickjson.loads(json.dumps(value, indent=2).encode()) == value


@pytest.mark.parametrize("text", ["", "{", "[1,]", '{"a":1} x', "nul", '"\n"', "NaN"])
def test_what_is_not_json_is_refused(text: str) -> None:
    """With ValueError, as json does."""
    with pytest.raises(ValueError, match=r"\S"):
        quickjson.loads(text)


def test_a_number_of_an_enumeration_is_written_as_a_number() -> None:
    """A signal from the signal module is one."""
    assert quickjson.dumps({"signal": Signals.SIGTERM}) == '{"signal":15}'


def test_what_json_has_no_form_for_is_refused() -> None:
    """Bytes, for one."""
    with pytest.raises(TypeError, match="bytes"):
        quickjson.dumps({"a": b"x"})
    assert math.isclose(quickjson.loads(quickjson.dumps(0.1)), 0.1)


def test_importing_it_does_not_bring_re() -> None:
    """That is what it is for."""
    code = "import sys; from wherry_oci.runtime import quickjson; print('re' in sys.modules or 'typing' in sys.modules)"
    path = str(quickjson.__file__).rpartition("/wherry_oci/")[0]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {path!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
