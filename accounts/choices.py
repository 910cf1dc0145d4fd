"""Values seen in the text columns of this app. The database has no constraint: any other value must display too."""

from django.db.models import TextChoices


class Gender(TextChoices):
    MALE = "male", "Male"
    FEMALE = "female", "Female"
    OTHER = "other", "Other"


class CabinClass(TextChoices):
    """The cabin classes of a user's preferences; saved searches have their own (travel.choices)."""

    ECONOMY = "economy", "Economy"
    PREMIUM = "premium", "Premium economy"
    BUSINESS = "business", "Business"
    FIRST = "first", "First"


class Theme(TextChoices):
    LIGHT = "light", "Light"
    DARK = "dark", "Dark"
    AUTO = "auto", "Device setting"


class Language(TextChoices):
    ENGLISH = "en", "English"
    SPANISH = "es", "Spanish"
    FRENCH = "fr", "French"
    GERMAN = "de", "German"
    ITALIAN = "it", "Italian"
    PORTUGUESE = "pt", "Portuguese"
    CHINESE = "zh", "Chinese"
    JAPANESE = "ja", "Japanese"


class Currency(TextChoices):
    USD = "USD", "US dollar"
    EUR = "EUR", "Euro"
    GBP = "GBP", "Pound sterling"
    BRL = "BRL", "Brazilian real"
    CAD = "CAD", "Canadian dollar"
    AUD = "AUD", "Australian dollar"
    JPY = "JPY", "Japanese yen"
    CNY = "CNY", "Chinese yuan"
    INR = "INR", "Indian rupee"
