"""Recordings that have the same content as another."""

import hashlib
from collections.abc import Hashable, Iterable

import numpy as np


def content_hash(angles_rad: np.ndarray) -> str:
    """16 hex digits over angles (T, 34), to a thousandth of a radian: the same in whichever format a file is."""
    rounded = np.ascontiguousarray(np.round(angles_rad * 1000).astype("<i4"))
    return hashlib.sha256(rounded.tobytes()).hexdigest()[:16]


def find_duplicates(contents: Iterable[tuple[str, Hashable, tuple[str, ...]]]) -> dict[str, str]:
    """{recording: reason} for recordings that have the same content as another.

    contents: (recording, its annotations, hashes of its content) of each.
    Of equally annotated duplicates the first stays. If any annotation differs none stays, since nobody can tell
    whose movement it is.
    """
    holders: dict[str, list[tuple[str, Hashable]]] = {}
    for name, annotations, hashes in contents:
        for content in hashes:
            holders.setdefault(content, []).append((name, annotations))
    reasons: dict[str, str] = {}
    for same in holders.values():
        if len({name for name, _ in same}) < 2:
            continue
        (first, annotations), *later = same
        if all(annotated == annotations for _, annotated in later):
            reasons |= {name: f"duplicate: the same content as {first}" for name, _ in later}
            continue
        for name, _ in same:
            rest = ", ".join(duplicate for duplicate, _ in same if duplicate != name)
            reasons[name] = f"duplicate: the same content as {rest}, annotated otherwise"
    return reasons
