"""The device, browser and system that a user agent names, in the words that the site uses."""

UNKNOWN = "Unknown"  # What the site writes where a user agent does not say.

# The first match counts: Edge also contains Chrome, and Chrome also contains Safari.
BROWSERS = (
    ("Edg", "Edge"),
    ("Firefox", "Firefox"),
    ("FxiOS", "Firefox"),
    ("CriOS", "Chrome"),
    ("Chrome", "Chrome"),
    ("Safari", "Safari"),
)
SYSTEMS = (
    ("iPhone", "iOS"),
    ("iPad", "iOS"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)
DEVICES = (
    ("iPad", "Tablet"),
    ("Tablet", "Tablet"),
    ("Mobi", "Mobile"),
    ("Windows", "Desktop"),
    ("Macintosh", "Desktop"),
    ("Linux", "Desktop"),
)


def _first(agent, names):
    return next((name for part, name in names if part in agent), UNKNOWN)


def describe(agent):
    """Return (device, browser, operating system) of a user agent's text, UNKNOWN where it does not say."""
    return _first(agent, DEVICES), _first(agent, BROWSERS), _first(agent, SYSTEMS)


def known(*parts):
    """Return the parts of a description that say something."""
    return [part for part in parts if part and part != UNKNOWN]


def shown(agent, row=None):
    """Show a user agent in a few words."""
    device, browser, system = describe(agent)
    return ", ".join(known(browser, system, device)) or agent[:80]
