import pytest
from django.contrib.auth import get_user_model

from accounts.models import UserPreferences

pytestmark = pytest.mark.django_db
SHOWN = ("currency", "language", "theme", "email_notifications", "price_alert_emails", "deal_alerts", "newsletter_opt_in")


def sign_in(client, email):
    response = client.post("/admin/login/?next=/admin/", {"username": email, "password": "correct horse"})
    assert response.status_code == 302


def test_the_first_sign_in_makes_the_default_preferences(client):
    get_user_model().objects.create_superuser("a@example.com", "correct horse")

    sign_in(client, "a@example.com")

    assert UserPreferences.objects.values_list("user__email", *SHOWN).get() == (
        "a@example.com", "USD", "en", "light", True, True, True, False,
    )  # fmt: skip


def test_existing_preferences_stay(client):
    user = get_user_model().objects.create_superuser("a@example.com", "correct horse")
    UserPreferences.objects.create(id="theirs", user=user, currency="EUR", theme="dark")

    sign_in(client, "a@example.com")
    sign_in(client, "a@example.com")

    assert UserPreferences.objects.values_list("id", "currency", "theme").get() == ("theirs", "EUR", "dark")
