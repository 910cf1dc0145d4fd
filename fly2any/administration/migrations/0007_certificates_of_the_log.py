"""Moves the certificates of erasures from the admin's log to the access records."""

from django.db import migrations

from fly2any.administration.certificates import MoveCertificates


class Migration(migrations.Migration):
    atomic = False  # Each batch is a transaction.
    dependencies = [
        ("administration", "0006_certificate"),
        ("admin", "0003_logentry_add_action_flag_choices"),
    ]

    operations = [MoveCertificates()]
