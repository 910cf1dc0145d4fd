from django.apps import AppConfig


class AIConsultantConfig(AppConfig):
    name = "ai_consultant"
    verbose_name = "AI consultant"
