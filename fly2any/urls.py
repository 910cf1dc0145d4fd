from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

admin.autodiscover()

handler500 = "fly2any.error_pages.server_error"

urlpatterns = [
    path("admin/second-factor/passkey/", include("fly2any.administration.passkeys")),
    path("admin/", admin.site.urls),
    path("", RedirectView.as_view(pattern_name="admin:index")),
]
