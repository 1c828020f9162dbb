"""The one exception that is for people: the command line prints it as one line, without a traceback.

And what a machine has too little of, or does not allow, which is no fault of the program's either.
"""

import re


class EqcollapseError(Exception):
    """A mistake or condition that the user can mend. The message names the key, file or cell, and what to do."""


def printable(text: str, keep: str = "") -> str:
    """Return `text` with what a terminal would obey, or cannot show, written as Python writes it.

    That is all but printable characters and those in `keep`.
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


_TOO_LITTLE = ("out of memory", "can't allocate memory", "failed to map segment")
"""What CUDA, torch and the loader of libraries say of too little memory."""


def machines_fault(error: Exception) -> str | None:
    """Return a line for an error that memory, disk or permissions led to; None for any other."""
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror}" if error.strerror else None
    if isinstance(error, MemoryError) or any(words in str(error) for words in _TOO_LITTLE):
        asked = re.search(r"allocate ([\d.]+ ?[KMGT]?i?B|\d+ bytes)", str(error))
        wanted = f" ({asked[1]} at once)" if asked else ""
        return (
            f"more memory is needed than this process may have{wanted}: allow it more "
            "(docs/reference/sizes.md has what each preset needs), run fewer jobs at a time, or choose a smaller "
            "network.width or train.batch_size"
        )
    return None
