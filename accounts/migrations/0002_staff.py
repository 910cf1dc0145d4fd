"""Staff sign in to the admin with their Fly2Any account (deviation D4)."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            "user", "is_staff", models.BooleanField("staff", db_column="isStaff", default=False, db_default=False)
        ),
        migrations.AddField(
            "user",
            "is_superuser",
            models.BooleanField("superuser", db_column="isSuperuser", default=False, db_default=False),
        ),
        migrations.AddField(
            "user", "is_active", models.BooleanField("active", db_column="isActive", default=True, db_default=True)
        ),
        migrations.AddField(
            "user",
            "groups",
            models.ManyToManyField(
                "auth.Group",
                blank=True,
                help_text="The groups this user belongs to. A user will get all permissions granted to each of their groups.",
                related_name="user_set",
                related_query_name="user",
                verbose_name="groups",
            ),
        ),
        migrations.AddField(
            "user",
            "user_permissions",
            models.ManyToManyField(
                "auth.Permission",
                blank=True,
                help_text="Specific permissions for this user.",
                related_name="user_set",
                related_query_name="user",
                verbose_name="user permissions",
            ),
        ),
    ]
