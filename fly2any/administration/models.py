"""The admin's own tables: the access records, and notes about people."""

from django.conf import settings
from django.db import models

from fly2any.database.facts import OnErasure
from fly2any.postgres.deletion import DB_CASCADE
from fly2any.postgres.expressions import CurrentTimestamp
from fly2any.postgres.indexes import Index


class Access(models.Model):
    """A conversation that staff opened, rows that they exported, or a person they erased. Only ever added to; it outlives both people."""

    class Action(models.TextChoices):
        OPENED = "opened", "Opened"
        EXPORTED = "exported", "Exported"
        ERASED = "erased", "Erased"

    at = models.DateTimeField("time", db_default=CurrentTimestamp(), editable=False)
    # No foreign keys: the record stays when the staff or the person is deleted.
    staff_id = models.TextField("staff")
    staff_email = models.TextField("staff e-mail")
    action = models.TextField(choices=Action)
    table = models.TextField()
    row_id = models.TextField("row", null=True, blank=True)
    person_id = models.TextField("person", null=True, blank=True)
    query = models.TextField(null=True, blank=True)
    ip_address = models.TextField("IP address", null=True, blank=True)
    certificate = models.JSONField("certificate of erasure", null=True, blank=True)

    on_erasure = OnErasure.CLEAR
    address_fields = ("staff_email",)
    fields_of_staff = ("staff_id", "staff_email", "query", "ip_address", "certificate")
    ids_of_subject = ("row_id", "person_id")
    ids_kept = ("person_id", "row_id", "staff_id", "certificate")
    certificate_field = "certificate"
    append_only = True

    class Meta:
        db_table = "fly2any_accesses"
        verbose_name = "access record"
        default_permissions = ("view",)
        permissions = [
            ("view_database", "Can see the database's health and backups"),
            ("export_person", "Can export everything about a person"),
            ("erase_person", "Can erase a person"),
        ]
        indexes = [
            # The admin's list, newest first.
            Index(fields=["at"], name="fly2any_accesses_at_idx"),
            # Who opened this person's conversations.
            Index(fields=["person_id", "at"], name="fly2any_accesses_person_at_idx"),
            # What this member of the staff opened.
            Index(fields=["staff_id", "at"], name="fly2any_accesses_staff_at_idx"),
        ]

    def __str__(self):
        return f"{self.staff_email} {self.action} {self.table} {self.row_id or ''}".rstrip()


class Note(models.Model):
    """A note by staff about a person. Only ever added to; it is deleted with the person."""

    at = models.DateTimeField("time", db_default=CurrentTimestamp(), editable=False)
    person = models.ForeignKey(settings.AUTH_USER_MODEL, DB_CASCADE, db_index=False, related_name="staff_notes")
    # No foreign key: the note stays when its author is deleted.
    staff_id = models.TextField("staff")
    text = models.TextField()

    person_field = "person"
    fields_of_staff = ("staff_id",)
    ids_kept = ("staff_id",)
    long_texts = ("text",)
    append_only = True

    class Meta:
        db_table = "fly2any_notes"
        verbose_name = "staff note"
        default_permissions = ("view", "add")
        indexes = [
            # The overview of a person, newest first, and deleting a person.
            Index(fields=["person", "at"], name="fly2any_notes_person_at_idx"),
            # The admin's list, newest first.
            Index(fields=["at"], name="fly2any_notes_at_idx"),
        ]

    def __str__(self):
        return f"Note of {self.at:%Y-%m-%d %H:%M} UTC"
