"""Kinds of edits that make a copy differ from its original, and which of them count.

    size            resized
    compression     another format, or another quality
    background      laid on a color, where the other one is transparent
    crop            a part of the other one
    turn            turned by any angle
    mirror          mirrored or flipped
    stretch         wider or higher
    paste           pasted into a larger picture
    color           brighter, darker, grey, tinted, more or less colorful
    blur            blurred
    overlay         text, a logo, a bar or something else was laid over it
    exchange        a color was exchanged: a red shirt became a blue one
    content         the content is another one: other numbers on a form, another card, a frown instead of a smile
    frames          one of them has several frames or pages, of which only the first one was compared
    label           the images are in folders of different classes

By default, images that differ by `exchange` or `content` are no copies, and only what differs in `size` or
`compression` is planned for removal.
"""

from __future__ import annotations

from collections.abc import Iterable

from simimg.errors import UsageError

SIZE, COMPRESSION, BACKGROUND = "size", "compression", "background"
CROP, TURN, MIRROR, STRETCH, PASTE = "crop", "turn", "mirror", "stretch", "paste"
COLOR, BLUR, OVERLAY = "color", "blur", "overlay"
EXCHANGE, CONTENT, FRAMES, LABEL = "exchange", "content", "frames", "label"

EDITS = (SIZE, COMPRESSION, BACKGROUND, CROP, TURN, MIRROR, STRETCH, PASTE, COLOR, BLUR, OVERLAY, EXCHANGE, CONTENT)
"""Edits that a copy may show."""

COUNTED = frozenset(EDITS) - {EXCHANGE, CONTENT}
"""Edits that make copies, by default."""

PLANNED = frozenset({SIZE, COMPRESSION})
"""Edits that are planned for removal, by default."""

EDITS_HELP = (
    "Edits that make a copy: names from this list, all of them, or auto, which is all but exchange and content: "
    f"{', '.join(EDITS)}. `-NAME` leaves one out of auto."
)


def counted_edits(names: Iterable[str]) -> frozenset[str]:
    """Return the kinds of edits that make a copy, as `--edits` names them, see `edits_of`."""
    return edits_of("edits", names, COUNTED)


def planned_edits(names: Iterable[str]) -> frozenset[str]:
    """Return the kinds of edits that a plan removes, as `--plan_edits` names them, see `edits_of`."""
    return edits_of("plan_edits", names, PLANNED, (*EDITS, FRAMES, LABEL))


def edits_of(flag: str, names: Iterable[str], default: frozenset[str], known: Iterable[str] = EDITS) -> frozenset[str]:
    """Return the kinds of edits that a flag names; none stands for the default.

    Raises:
        UsageError: there is no such kind.
    """
    known, names = tuple(known), tuple(names)
    unsigned = [name.removeprefix("-") for name in names]
    for name in unsigned:
        if name not in (*known, "all", "auto"):
            raise UsageError(f"--{flag}={name}: there is no such edit. Choose from: {', '.join(known)}, all, auto.")
    kinds = {"all": frozenset(known), "auto": default}
    removed, chosen = set[str](), set[str]()
    for name, kind in zip(names, unsigned, strict=True):
        (removed if name.startswith("-") else chosen).update(kinds.get(kind, {kind}))
    is_any_chosen = any(not name.startswith("-") for name in names)
    return frozenset((chosen if is_any_chosen else default) - removed)
