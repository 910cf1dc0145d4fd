"""Values seen in the text columns of this app. The database has no constraint: any other value must display too."""

from django.db.models import TextChoices


class CabinClass(TextChoices):
    """The cabin classes of a saved search; a user's preferences have their own (accounts.choices)."""

    ECONOMY = "economy", "Economy"
    PREMIUM_ECONOMY = "premium_economy", "Premium economy"
    BUSINESS = "business", "Business"
    FIRST = "first", "First"


class Provider(TextChoices):
    DUFFEL = "duffel", "Duffel"
    AMADEUS = "amadeus", "Amadeus"
    MOCK = "mock", "Mock"


class Trigger(TextChoices):
    CRON = "cron", "Schedule"
    MANUAL = "manual", "Manual"
