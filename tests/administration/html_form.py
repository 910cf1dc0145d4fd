"""What a browser sends for a form of the admin, determined from its HTML."""

from html.parser import HTMLParser


class Form(HTMLParser):
    """The successful controls of the form `identity`, in their order, as [name, value]: by the rules of HTML, without scripts."""

    def __init__(self, html, identity):
        super().__init__()
        self.identity, self.inside, self.controls = identity, False, []
        self.select = self.option = self.textarea = None
        self.feed(html.replace("\r\n", "\n").replace("\r", "\n"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "form":
            self.inside = given.get("id") == self.identity
        if not self.inside:
            return
        name, kind = given.get("name"), given.get("type", "text")
        if tag == "input" and name and kind not in ("submit", "button", "file"):
            value = given.get("value", "on" if kind in ("checkbox", "radio") else "") or ""
            if kind in ("checkbox", "radio"):
                if "checked" in given:
                    self.controls.append([name, value])
                return
            if kind != "hidden":
                value = value.replace("\n", "")
            if kind == "number":
                value = value if _is_number(value) else ""
            self.controls.append([name, value])
        elif tag == "textarea":
            self.textarea = [name, ""]
        elif tag == "select":
            self.select, self.options = name, []
            self.multiple = "multiple" in given
        elif tag == "option" and self.select:
            self.options.append([given.get("value", ""), "selected" in given])

    def handle_data(self, data):
        if self.textarea:
            self.textarea[1] += data

    def handle_endtag(self, tag):
        if tag == "form":
            self.inside = False
        elif tag == "textarea" and self.textarea:
            name, text = self.textarea
            self.controls.append([name, text.removeprefix("\n")])
            self.textarea = None
        elif tag == "select" and self.select:
            chosen = [value for value, selected in self.options if selected]
            if not self.multiple:
                chosen = chosen[-1:] or [value for value, _ in self.options[:1]]
            self.controls += [[self.select, value] for value in chosen]
            self.select = None


def _is_number(text):
    try:
        return text.strip("-+").lower() not in ("nan", "inf", "infinity") and float(text) is not None
    except ValueError:
        return False


def controls(page, identity):
    """Return what is sent for the form `identity` of a response, by name, as lists of values; line ends are CRLF."""
    sent = {}
    for name, value in Form(page.content.decode(), identity).controls:
        sent.setdefault(name, []).append(value.replace("\n", "\r\n"))
    assert sent, f"The page has no form {identity}."
    return sent
