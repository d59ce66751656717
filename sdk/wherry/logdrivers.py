"""Log drivers: what each can be asked for, and what its writer in the shim is told."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wherry_oci.errors import InvalidArgument, Unsupported

if TYPE_CHECKING:
    from wherry.containerstore import Record
    from wherry.options import Log

DRIVERS = ("local", "json-file", "none", "syslog", "journald")
KEPT_HERE = ("local", "json-file")  # what others get cannot be read back
_FILES = ("max-size", "max-file", "compress", "mode")
_OPTIONS = {
    "local": _FILES,
    "json-file": _FILES,
    "none": (),
    "syslog": ("syslog-address", "syslog-facility", "syslog-format", "tag", "mode"),
    "journald": ("tag", "mode"),
}
_FACILITIES = {
    **{
        name: number
        for number, name in enumerate("kern user mail daemon auth syslog lpr news uucp cron authpriv ftp".split())
    },
    **{f"local{number}": 16 + number for number in range(8)},
}
_FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
_DEFAULT_ADDRESS = "unixgram:///dev/log"
_DEFAULT_PORT = "514"
_SHORT = 12


def check(driver: str, options: Mapping[str, str]) -> None:
    """Raises Unsupported for a driver or an option that is not known, InvalidArgument for a value."""
    if driver not in DRIVERS:
        raise Unsupported(f"log_config: the driver {driver!r} is not supported: {', '.join(DRIVERS)} are")
    for name in options:
        if name not in _OPTIONS[driver]:
            raise Unsupported(f"log_config: the option {name!r} of {driver} is not supported")
    if options.get("mode", "blocking") != "blocking":
        raise Unsupported(f"log_config: mode={options['mode']!r} is not supported: blocking is")
    if driver == "syslog":
        _facility(options.get("syslog-facility", ""))
        _address(options.get("syslog-address", ""))
        if options.get("syslog-format", "") not in _FORMATS:
            raise InvalidArgument(f"log_config: syslog-format={options['syslog-format']!r}: one of {_FORMATS[1:]}")
    if "tag" in options:
        _tag(options["tag"], dict.fromkeys(("ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName"), "x"))


def _facility(text: str) -> int:
    if text.isdigit() and int(text) in _FACILITIES.values():
        return int(text)
    if text and text not in _FACILITIES:
        raise InvalidArgument(f"log_config: syslog-facility={text!r} is none of {', '.join(_FACILITIES)}")
    return _FACILITIES[text or "daemon"]


def _address(text: str) -> str:
    """As the shim takes it."""
    if not text:
        return _DEFAULT_ADDRESS
    scheme, separator, place = text.partition("://")
    if scheme == "tcp+tls":
        raise Unsupported("log_config: syslog-address by tcp+tls is not supported: tcp is")
    if not separator or not place or scheme not in ("unix", "unixgram", "udp", "tcp"):
        raise InvalidArgument(
            f"log_config: syslog-address={text!r}: unix://PATH, unixgram://PATH, or [udp|tcp]://HOST[:PORT]"
        )
    if scheme.startswith("unix"):
        return text
    host, colon, port = place.rpartition(":")
    if not colon or port.endswith("]"):
        return f"{scheme}://{place}:{_DEFAULT_PORT}"
    if not port.isdigit():
        raise InvalidArgument(f"log_config: syslog-address={text!r}: {port!r} is no port")
    return f"{scheme}://{host}:{port}"


def _tag(template: str, fields: Mapping[str, str]) -> str:
    if not template:
        return fields["ID"]
    from wherry.gotemplate import render

    return render(template, {**fields, "DaemonName": "wherry"})


def order(log: "Log", record: "Record") -> dict[str, Any]:
    """What the shim is told."""
    told: dict[str, Any] = {"driver": log.driver, "limits": log.limits if log.driver in KEPT_HERE else {}}
    if log.driver not in ("syslog", "journald"):
        return told
    image = record.image_id.partition(":")[2]
    about = {
        "ID": record.id[:_SHORT],
        "FullID": record.id,
        "Name": record.name,
        "ImageID": image[:_SHORT],
        "ImageFullID": record.image_id,
        "ImageName": record.image,
    }
    tag = _tag(log.options.get("tag", ""), about)
    if log.driver == "journald":
        fields = {
            "CONTAINER_ID": about["ID"],
            "CONTAINER_ID_FULL": record.id,
            "CONTAINER_NAME": record.name,
            "CONTAINER_TAG": tag,
            "IMAGE_NAME": record.image,
            "SYSLOG_IDENTIFIER": tag,
        }
        return {**told, "fields": fields}
    return {
        **told,
        "address": _address(log.options.get("syslog-address", "")),
        "facility": _facility(log.options.get("syslog-facility", "")),
        "form": log.options.get("syslog-format", ""),
        "tag": tag,
    }
