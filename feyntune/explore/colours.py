"""What a session finds as HTML: completions as cards, surprise as the colour of each token.

Colours are laid thinly over whatever background there is and text keeps its own, so that light
and dark themes both work. Blue and vermilion are told apart with any colour vision (Okabe and
Ito), and the line under a token is dotted where the variant is more surprised, for print in grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from IPython.display import HTML
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
LESS, MORE = "0, 114, 178", "213, 94, 0"
OPACITY = 0.6  # of the strongest colour: text on it keeps a contrast of 7:1 on white and on black
# Beyond the scale lie the few tokens that would make all others pale.
ON_SCALE = 0.95


def completions(frame: pd.DataFrame) -> HTML:
    """The frame of :meth:`feyntune.explore.session.Session.complete` as cards side by side."""
    cards = [
        {"model": row.Index, "text": row.completion or "(nothing)", "numbers": _card_numbers(row)}
        for row in frame.itertuples()
    ]
    return _render("completions", cards=cards, prompt=frame.attrs["prompt"], frames=[frame])


def coloured(*frames: pd.DataFrame) -> HTML:
    """Abstracts whose tokens are coloured by how much more or less a variant is surprised.

    Parameters
    ----------
    frames
        From :meth:`feyntune.explore.session.Session.surprise`; all are drawn on one scale,
        symmetric about 0. A token's numbers show while the pointer rests on it.
    """
    pieces = [_pieces(frame) for frame in frames]
    limit = scale_limit(np.concatenate([part["difference"] for part in pieces]))
    texts = [_text(frame, part, limit) for frame, part in zip(frames, pieces, strict=True)]
    beyond = max(part["difference"].abs().max() for part in pieces) > limit
    ends = [f"{'≤ ' if beyond else ''}{-limit:g}", f"{'≥ ' if beyond else ''}{limit:g}"]
    return _render(
        "surprise",
        texts=texts,
        ends=[end.replace("-", "−") for end in ends],
        gradient=f"{_colour(-1)}, transparent, {_colour(1)}",
        aria=f"Colours from blue, {limit:g} nats less surprised, to orange, as many more.",
        frames=frames,
    )


def scale_limit(differences: Sequence[float]) -> float:
    """The round number (1, 2, 3 or 5 times a power of ten) that nearly all differences are within.

    1 where there are none.
    """
    reached = np.quantile(np.abs(differences), ON_SCALE)
    if reached == 0:
        return 1.0
    power = np.floor(np.log10(reached))
    # By way of text: 3 * 10**-1 is not quite 0.3.
    rounds = [float(f"{digit}e{int(power)}") for digit in (1, 2, 3, 5, 10)]
    return next(number for number in rounds if number >= reached * (1 - 1e-9))


def _pieces(frame: pd.DataFrame) -> pd.DataFrame:
    """Tokens, those that make up one character together: nats of a character add up."""
    first = (frame["token"] != "").cumsum()
    pieces = frame.groupby(first).agg(
        {"token": "sum", "nll_base": "sum", "nll_variant": "sum", "difference": "sum"}
    )
    return pieces.assign(tokens=frame.groupby(first).size())


def _text(frame: pd.DataFrame, pieces: pd.DataFrame, limit: float) -> dict:
    """What the template shows of one text."""
    base, variant = frame["nll_base"].mean(), frame["nll_variant"].mean()
    total = frame["difference"].sum()
    direction = "less" if total < 0 else "more"
    return {
        "variant": frame.attrs["variant"],
        "total": f"{abs(total):.1f} nats {direction} surprised over {len(frame):,} tokens",
        "perplexity": f"perplexity {np.exp(base):.2f} → {np.exp(variant):.2f}",
        "pieces": [
            {
                "text": row.token,
                "numbers": _numbers(row, frame.attrs["variant"]),
                "style": _token_style(row.difference / limit),
            }
            for row in pieces.itertuples()
        ],
    }


def _numbers(row: tuple, variant: str) -> str:
    """What is read while the pointer rests on a token."""
    of = f"{row.tokens} tokens together\n" if row.tokens > 1 else ""
    difference = f"{row.difference:+.3f}".replace("-", "−")
    return (
        f"{of}base {row.nll_base:.3f} nats ({np.exp(-row.nll_base):.2%})\n"
        f"{variant} {row.nll_variant:.3f} nats ({np.exp(-row.nll_variant):.2%})\n"
        f"difference {difference}"
    )


def _card_numbers(row: tuple) -> str:
    score = "" if np.isnan(row.semscore) else f"SemScore {row.semscore:.3f} · "
    entropy = "" if np.isnan(row.entropy_exp) else f" · entropy (exp) {row.entropy_exp:.1f}"
    return f"{score}{row.tokens:,} tokens{entropy}".replace("-", "−")


def _colour(share: float, strongest: float = OPACITY) -> str:
    """The colour of a share of the scale, from -1 to 1; what lies beyond is as its end."""
    opacity = strongest * min(abs(share), 1)
    return f"rgba({LESS if share < 0 else MORE}, {opacity:.3f})"


def _token_style(share: float) -> str:
    line = "dotted" if share > 0 else "solid"
    return f"background: {_colour(share)}; border-bottom: 2px {line} {_colour(share, 1)}"


def _render(template: str, *, frames: Sequence[pd.DataFrame], **values) -> HTML:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    label = frames[0].attrs.get("label")
    page = environment.get_template(f"{template}.html").render(style=style, label=label, **values)
    return HTML(page)
