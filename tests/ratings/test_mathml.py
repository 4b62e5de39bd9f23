"""TeX of abstracts as HTML: what converts, what stays its source, what must never get through."""

from xml.etree import ElementTree

import pytest

from feyntune.ratings.mathml import render


def tree(text: str) -> ElementTree.Element:
    """What a browser would parse; that it parses at all is half the test."""
    return ElementTree.fromstring(f"<p>{render(text)}</p>")


def tags(text: str) -> list[str]:
    return [node.tag.split("}")[-1] for node in tree(text).iter()][1:]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"Poincar\'e, K\"ahler, Schr\"{o}dinger", "Poincaré, Kähler, Schrödinger"),
        (r"\v{S}, Erd\H{o}s, fa\c{c}ade, na\"\i ve, \^{\i}", "Š, Erdős, façade, naïve, î"),
        (r"10\% of \$5 in R\&D", "10% of $5 in R&D"),
        ("10% of it, and on", "10% of it, and on"),
        ("costs $5 and then", "costs $5 and then"),
        ("a < b & c > d \"e\" 'f'", "a < b & c > d \"e\" 'f'"),
        ("", ""),
    ],
)
def test_prose(text, shown):
    assert "".join(tree(text).itertext()) == shown and tags(text) == []


@pytest.mark.parametrize(
    ("text", "shown", "within"),
    [
        (r"on $AdS_5 \times S^5$.", "on AdS5×S5.", ["msub", "msup"]),
        (r"\(\frac{1}{2}\)", "12", ["mfrac"]),
        (r"$$\sqrt{g}$$ and \[x\]", "g and x", ["msqrt"]),
        (r"${\cal N}=4$, $\mathcal{N}$", "𝒩=4, 𝒩", []),
        (r"${\bf R}^{10}$", "𝐑10", ["msup"]),
        (r"$a<b$", "a<b", []),
        (r"$m \sim 5\,\text{GeV}$", "m∼5GeV", ["mtext"]),
        (r"$\$5$", "$5", []),
    ],
)
def test_formulas(text, shown, within):
    assert "".join("".join(tree(text).itertext()).split()) == "".join(shown.split())
    assert "math" in tags(text) and set(within) <= set(tags(text))


@pytest.mark.parametrize(
    "formula",
    [
        r"$\unknown{x}$", r"$\frac{1$", "$x}$", "${x$", "$x^$", r"$\left( a$", r"$\sqrt$",
        "$a & b$", r"\(\slashed{D}\)", "$" + "{" * 3000 + "}" * 3000 + "$",
        "$" + "{" * 900 + "}" * 900 + "$", "$" + "x" * 3000 + "$",
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_its_source(formula):
    assert "".join(tree(f"Let {formula} be.").itertext()) == f"Let {formula} be."
    assert tags(f"Let {formula} be.") == ["code"]


@pytest.mark.parametrize(
    "attack",
    [
        "<script>alert(1)</script>",
        r"$\text{<img src=x onerror=alert(1)>}$",
        r"$\hbox{<script>alert(1)</script>}$",
        "$<script>$",
        r"$\text{&lt;script&gt;}$",
        r"$\href{javascript:alert(1)}{x}$",
        r"$\style{background:url(http://x)}{x}$ $\class{item}{x}$",
        '$\\unknown{"><script>alert(1)</script>}$',
        r"""$\text{" onload="alert(1)}$""",
    ],
)
def test_nothing_gets_through(attack):
    found = list(tree(attack).iter())
    names = {node.tag.split("}")[-1] for node in found}
    assert not names & {"script", "img", "a"}
    given = {name for node in found for name in node.attrib}
    assert not given & {"href", "src", "style", "onload", "onerror"}
    assert not [n for n in found if n.get("class") not in (None, "tex")]


def test_control_characters_are_spaces():
    assert render("a\x00b\x1fc") == "a b c"
