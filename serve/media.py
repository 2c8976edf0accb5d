"""Media types of requests and answers: what a client accepts, and what it sends. Knows HTTP only."""

from collections.abc import Iterable

from serve.errors import ApiError


def _parsed(value: str) -> tuple[str, dict[str, str]]:
    """(type, parameters) of a media type, in lower case."""
    kind, *given = value.split(";")
    pairs = (one.partition("=") for one in given)
    return kind.strip().lower(), {n.strip().lower(): v.strip().strip('"').lower() for n, _, v in pairs}


def accepted(accept: str, kinds: Iterable[str], **parameters: str) -> bool:
    """Whether the header Accept takes one of these media types.

    parameters: values that the header may ask for, such as fhirVersion. Another value is not accepted.
    """
    for part in accept.split(",") if accept.strip() else ["*/*"]:
        wanted, given = _parsed(part)
        if _weight(given.get("q", "1")) == 0 or not _agrees(given, parameters):
            continue
        for kind in kinds:
            if wanted in (kind, "*/*", f"{kind.partition('/')[0]}/*"):
                return True
    return False


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


def _agrees(given: dict[str, str], parameters: dict[str, str]) -> bool:
    return all(given.get(name.lower(), value) == value for name, value in parameters.items())


def check_content_type(content_type: str, kinds: Iterable[str], **parameters: str) -> str:
    """The media type of a body. Raises ApiError `unsupported_type` if it is none of these."""
    kinds = tuple(kinds)
    kind, given = _parsed(content_type)
    if kind not in kinds or not _agrees(given, parameters):
        raise ApiError(
            "unsupported_type", f"Content-Type: expected {' or '.join(kinds)}, found {content_type[:80]!r}"
        )
    return kind
