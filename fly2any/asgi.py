import os

from django.core.asgi import get_asgi_application

from fly2any.postgres.pool import serve_from_pools

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fly2any.settings")

application = get_asgi_application()
serve_from_pools()
