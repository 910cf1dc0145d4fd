from django.apps import AppConfig


class DatabaseConfig(AppConfig):
    name = "fly2any.database"
    label = "database"
