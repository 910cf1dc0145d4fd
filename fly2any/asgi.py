import os
from importlib import import_module

import django
from django.conf import settings

from fly2any.postgres.pool import serve_from_pools
from fly2any.postgres.response_timeout import limit_every_wait
from fly2any.request_handlers import ASGIHandler

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fly2any.settings")

django.setup(set_prefix=False)
application = ASGIHandler()
import_module(settings.ROOT_URLCONF)  # Loaded now, not by the first request.
limit_every_wait()
serve_from_pools()
