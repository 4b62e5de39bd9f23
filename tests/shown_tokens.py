"""Tokens as a browser shows them."""

from html.parser import HTMLParser


class Shown(HTMLParser):
    """Texts and attributes of the tokens, as a browser reads them; and every tag."""

    def __init__(self, page: str):
        super().__init__()
        self.tokens, self.tags, self.inside = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = "title" in dict(attributes)
        if self.inside:
            self.tokens.append({"text": "", **dict(attributes)})

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.tokens[-1]["text"] += data
