"""The one exception that is for people: the command line prints it as one line, without a traceback."""


class EqcollapseError(Exception):
    """A mistake or condition that the user can mend. The message names the key, file or cell, and what to do."""
