"""What each reason for refusing a file means, in plain words, and what to do about it."""

from __future__ import annotations

from tfrecords.format.quarantine import Reason

__all__ = ["reason_text"]

# A heading, and a sentence or two.
_TEXTS = {
    Reason.UNKNOWN_SUFFIX: (
        "Not named like pictures",
        "Their names do not end like that of a picture. Rename those that are pictures.",
    ),
    Reason.NO_CLASS_FOLDER: ("Without a class", "They lie in no class folder, or have no label. Move them into one."),
    Reason.UNREADABLE: (
        "Unreadable",
        "The operating system did not let them be read: no permission, a failing disk, or gone meanwhile.",
    ),
    Reason.BROKEN_LINK: ("Broken links", "Symbolic links to what is not there. Mend or remove them."),
    Reason.LINK_LOOP: ("Links in a circle", "Symbolic links that lead back to where they came from. Remove them."),
    Reason.NOT_A_FILE: ("Not files", "Pipes, sockets or devices, which have no picture to read."),
    Reason.CHANGED: ("Changed while they were read", "Something wrote to them. Convert again when it has finished."),
    Reason.EMPTY: ("Empty", "Files of zero bytes, as an interrupted copy leaves them. Copy them again."),
    Reason.NOT_AN_IMAGE: ("Not pictures", "Their first bytes are those of no picture format that is known here."),
    Reason.TEXT: (
        "Text where a picture should be",
        "Often the error page of a web server, saved under a picture's name. Download them again.",
    ),
    Reason.UNSUPPORTED: (
        "Formats that cannot be decoded here",
        "They are pictures, but this installation has no decoder for them. The details name what to install.",
    ),
    Reason.TRUNCATED: (
        "Cut off",
        "They end before their last pixel. Copy them again, or take what is there with --truncated=keep.",
    ),
    Reason.CORRUPT: ("Damaged", "They begin like a picture but cannot be decoded. Restore them from their source."),
    Reason.TOO_LARGE: (
        "Too large",
        "They promise more pixels, or have more bytes, than any camera gives; decoding them could fill the memory.",
    ),
}


def reason_text(reason: str) -> tuple[str, str]:
    """Returns a heading and a sentence for a reason's code; for one of another version, the code itself."""
    return _TEXTS[Reason(reason)] if reason in set(Reason) else (reason.replace("_", " ").capitalize(), "")
