"""A staff member for locust, who follows the links of pages and pauses for one to three seconds."""

import os
import random
import re
from html import unescape
from itertools import count
from urllib.parse import quote

from locust import HttpUser, between, task

SESSIONS = os.environ["SESSIONS"].split(",")
ADDRESSES = os.environ["ADDRESSES"].split(",")
LISTS = ("accounts/user", "travel/pricehistory", "travel/pricealert", "engagement/notification", "engagement/useractivity")
numbers = count()


class Staff(HttpUser):
    wait_time = between(1, 3)

    def on_start(self):
        self.client.headers["Cookie"] = SESSIONS[next(numbers) % len(SESSIONS)]
        self.client.headers["X-Forwarded-Proto"] = "https"  # As a proxy in front of gunicorn would set it.

    def read(self, url, kind):
        """Return the links of one of our pages; any other response is an error."""
        with self.client.get(url, name=kind, allow_redirects=False, catch_response=True) as page:
            if page.status_code != 200:
                page.failure(f"{page.status_code} at {url}")
            return [unescape(link) for link in re.findall(r'href="(/admin/[^"]+|\?[^"]*)"', page.text)]

    @task(1)
    def first_page(self):
        self.read("/admin/", "first page")

    @task(6)
    def browse(self):
        """A list, a filter, three pages on, a row."""
        place = f"/admin/{random.choice(LISTS)}/"
        links = self.read(place, "list")
        if filters := [link for link in links if link.startswith("?") and "after" not in link and "o=" not in link]:
            self.wait()
            links = self.read(place + random.choice(filters), "filter")
        for _ in range(3):
            further = [link for link in links if link.startswith("?") and "after=" in link]
            if not further:
                break
            self.wait()
            links = self.read(place + further[0], "further page")
        rows = [link for link in links if re.search(r"/change/", link) and link.startswith(place)]
        if rows:
            self.wait()
            self.read(random.choice(rows), "row")

    @task(3)
    def help_somebody(self):
        """Look a person up by e-mail address: the overview, then the notifications."""
        links = self.read(f"/admin/accounts/user/?q={quote(random.choice(ADDRESSES))}", "search")
        people = [link for link in links if link.startswith("/admin/accounts/user/") and "/change/" in link]
        if people:
            person = people[0].split("/")[4]
            self.wait()
            self.read(f"/admin/accounts/user/{person}/overview/", "overview")
            self.wait()
            self.read(f"/admin/engagement/notification/?user={person}", "notifications of one")

    @task(1)
    def read_a_conversation(self):
        links = self.read("/admin/ai_consultant/conversation/", "list")
        if talks := [link for link in links if "/conversation/" in link and "/change/" in link]:
            self.wait()
            self.read(random.choice(talks), "conversation")
