from datetime import timedelta

from django.db import models
from django.db.models.functions import Left


class SavedSearchQuerySet(models.QuerySet):
    def of_user(self, user_id):
        """The saved searches of a user, last used first."""
        return self.filter(user_id=user_id).order_by("-last_searched")


class PriceAlertQuerySet(models.QuerySet):
    def active_of_user(self, user_id):
        """The active alerts of a user, fired ones too."""
        return self.filter(user_id=user_id, active=True)

    def of_route(self, origin, destination):
        """The alerts on a route (IATA codes), newest first."""
        # The index is over the first characters of the two texts, which may be long.
        beginnings = self.alias(from_=Left("origin", 8), to=Left("destination", 8)).filter(from_=origin[:8], to=destination[:8])
        return beginnings.filter(origin=origin, destination=destination).order_by("-created_at")

    def queue(self):
        """The armed alerts (active and not fired), the one checked longest ago first."""
        return self.filter(active=True, triggered=False).order_by("last_checked")

    def due(self, *, at, every=timedelta(hours=6)):
        """The armed alerts that were not checked in the last `every`."""
        return self.queue().filter(last_checked__lte=at - every)


class RecentSearchQuerySet(models.QuerySet):
    def of_user(self, user_id):
        """The recent searches of a user, last viewed first."""
        return self.filter(user_id=user_id).order_by("-viewed_at")


class PriceHistoryQuerySet(models.QuerySet):
    def of_route(self, origin, destination, depart_date):
        """The prices recorded for a route (IATA codes) and a departure date (`YYYY-MM-DD`), newest first."""
        return self.filter(origin=origin, destination=destination, depart_date=depart_date).order_by("-timestamp")

    def before(self, cutoff):
        """The prices recorded before `cutoff`, for deletion."""
        return self.filter(timestamp__lt=cutoff)


class PriceMonitorLogQuerySet(models.QuerySet):
    def newest_first(self):
        """The runs of the price monitor, newest first."""
        return self.order_by("-execution_time")
