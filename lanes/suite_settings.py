"""Settings of Django's test suite: a server and an engine from the environment."""

import os

DATABASES = {
    alias: {
        "ENGINE": os.environ["SUITE_ENGINE"],
        "NAME": f"suite_{alias}",
        "USER": "postgres",
        "HOST": os.environ["SUITE_HOST"],
        "TEST": {"NAME": f"test_{alias}"},
    }
    for alias in ("default", "other")
}
SECRET_KEY = "django_tests_secret_key"  # The key in runtests.py: tests compare signatures made with it.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
TEST_RUNNER = "lanes.suite_runner.Runner"
