"""The errors a user can cause: one line that says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something the user can mend. Shown as one line, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows, in a notebook too."""
        return [f"{type(self).__name__}: {self}"]


class Unavailable(UserError):
    """Something from outside that cannot be had here and now, and is not wrong."""


class Unreachable(Unavailable):
    """Nor can anything else from the same place."""


def choose(kind: str, value: str, valid: Iterable[str], *, of: str = "") -> str:
    """Return ``value`` if it is one of ``valid``, else say what is and what was nearly meant.

    Parameters
    ----------
    kind
        What is being chosen, in the singular: ``"variant"``.
    value
        What the user gave.
    valid
        The names there are, in the order in which to list them.
    of
        Whose they are: ``"experiment demo"``.

    Raises
    ------
    UserError
        If ``value`` is not among ``valid``.
    """
    names = list(valid)
    if value in names:
        return value
    # Case is the commonest slip (s1-lora-all), so near misses are sought without it.
    lowered = {name.lower(): name for name in reversed(names)}
    close = [lowered[match] for match in get_close_matches(value.lower(), lowered, n=1, cutoff=0.6)]
    hint = f" Did you mean {close[0]!r}?" if close else ""
    whose = f" of {of}" if of else ""
    raise UserError(f"Unknown {kind} {value!r}{whose}.{hint} Valid: {', '.join(names)}.")
