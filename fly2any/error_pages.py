import re

from django.conf import settings
from django.views.debug import SafeExceptionReporterFilter


class ExceptionReporterFilter(SafeExceptionReporterFilter):
    """Django's filter, which also hides URLs (POSTGRES_URL holds the password) and variables in which a password stands."""

    hidden_settings = re.compile(f"{SafeExceptionReporterFilter.hidden_settings.pattern}|URL|DSN", re.IGNORECASE)

    def get_traceback_frame_variables(self, request, tb_frame):
        secrets = {password for database in settings.DATABASES.values() if (password := database.get("PASSWORD"))}
        return [
            (name, self.cleansed_substitute if any(secret in repr(value) for secret in secrets) else value)
            for name, value in super().get_traceback_frame_variables(request, tb_frame)
        ]
