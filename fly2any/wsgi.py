import os

from django.core.wsgi import get_wsgi_application

from fly2any.postgres.pool import serve_from_pools

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fly2any.settings")

application = get_wsgi_application()
serve_from_pools()
