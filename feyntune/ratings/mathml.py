"""TeX as arXiv abstracts hold it, as HTML that a browser shows without a network or a script.

Formulas become MathML, TeX accents become letters. What cannot be converted is shown as its source:
a model's completion may stop inside a formula, or contain wrong TeX.
"""

from __future__ import annotations

import html
import re
import unicodedata
from xml.etree.ElementTree import Element, tostring

from latex2mathml.converter import convert_to_element

# A formula by its delimiters; an escaped dollar is not one.
FORMULA = re.compile(
    r"(?<!\\)\$\$(?P<display>.+?)(?<!\\)\$\$"
    r"|(?<!\\)\$(?P<inline>(?:\\.|[^$\\])+)\$"
    r"|\\\((?P<round>.+?)\\\)"
    r"|\\\[(?P<square>.+?)\\\]",
    re.DOTALL,
)
# TeX's text accents as combining marks. A converter of whole TeX files would take a per cent sign
# in an abstract for a comment and lose the rest of the line.
ACCENTS = {
    "'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "=": "\u0304",
    ".": "\u0307", "c": "\u0327", "v": "\u030c", "u": "\u0306", "H": "\u030b", "k": "\u0328",
    "r": "\u030a",
}  # fmt: skip
ACCENTED = re.compile(
    r"""\\(?:(?P<mark>['`^"~=.])\s*(?:\{\\?(?P<a>[A-Za-z])\}|\\(?P<i>[ij])(?![A-Za-z])\s?"""
    r"""|(?P<b>[A-Za-z]))|(?P<letter>[cvuHkr])\s*\{\\?(?P<c>[A-Za-z])\})"""
)
# Old font switches; MathML Core has separate letters instead.
SWITCH = re.compile(r"\{\s*\\(cal|bf|rm|it|frak)(?![A-Za-z])\s*([^{}]*)\}")
# Attributes that a formula may have: no link, style or class.
ATTRIBUTES = {
    "accent", "columnalign", "columnlines", "columnspacing", "depth", "display", "displaystyle",
    "fence", "form", "height", "largeop", "linethickness", "lspace", "mathvariant", "maxsize",
    "minsize", "movablelimits", "rowlines", "rowspacing", "rspace", "scriptlevel", "separator",
    "stretchy", "symmetric", "width", "xmlns",
}  # fmt: skip
LONGEST = 2000  # characters of a formula worth converting
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def render(text: str) -> str:
    """Return ``text`` as HTML: escaped, its formulas as MathML, its accents as letters."""
    text, parts, end = CONTROL.sub(" ", text), [], 0
    for found in FORMULA.finditer(text):
        parts += [_prose(text[end : found.start()]), _formula(found)]
        end = found.end()
    return "".join([*parts, _prose(text[end:])])


def _prose(text: str) -> str:
    text = ACCENTED.sub(_letter, text)
    return html.escape(text.replace(r"\$", "$").replace(r"\%", "%").replace(r"\&", "&"))


def _letter(found: re.Match) -> str:
    letter = found["a"] or found["i"] or found["b"] or found["c"]
    mark = ACCENTS[found["mark"] or found["letter"]]
    return unicodedata.normalize("NFC", letter + mark)


def _formula(found: re.Match) -> str:
    """MathML of a formula, or its source where it cannot be converted."""
    tex = next(part for part in found.groups() if part is not None)
    display = "block" if found["display"] or found["square"] else "inline"
    try:
        if len(tex) > LONGEST or not _braced(tex):
            raise ValueError("not one formula")
        element = convert_to_element(SWITCH.sub(r"\\math\1{\2}", tex), display=display)
        for node in element.iter():
            _clean(node, tex)
        if not "".join(element.itertext()).strip():
            raise ValueError("nothing to see")
    except Exception:  # the library can fail in any way on wrong TeX; show the source instead
        return f'<code class="tex">{html.escape(found[0])}</code>'
    element.set("alttext", tex)
    return tostring(element, encoding="unicode")


def _braced(tex: str) -> bool:
    """Whether every brace has its partner."""
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", tex):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def _clean(node: Element, tex: str) -> None:
    """Keep known attributes only, and turn the library's entities into characters.

    Raises
    ------
    ValueError
        If the library left a command unconverted.
    """
    for name in node.attrib.keys() - ATTRIBUTES:
        del node.attrib[name]
    if node.text:
        node.text = html.unescape(node.text)
        if node.tag != "mtext" and ("\\" in node.text or (node.text == "&" and r"\&" not in tex)):
            raise ValueError(f"unknown: {node.text}")
        if node.text == "~" and r"\sim" in tex:
            node.text = "∼"
    if node.get("mathvariant") == "italic":
        del node.attrib["mathvariant"]  # what a single letter is anyway
