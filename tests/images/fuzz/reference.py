"""References: any text is one, and then its normalized form is the same one, or an InvalidReference."""

import sys
from importlib import import_module

atheris = import_module("atheris")  # it is installed for fuzzing alone

with atheris.instrument_imports(include=["wherry_images"]):
    from wherry_images.errors import InvalidReference
    from wherry_images.reference import parse_reference


def one_input(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        parsed = parse_reference(text)
    except InvalidReference:
        return
    again = parse_reference(str(parsed))
    if again != parsed or parse_reference(parsed.familiar) != parsed:
        raise AssertionError(f"{text!r} is {parsed}, and that is {again}")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
