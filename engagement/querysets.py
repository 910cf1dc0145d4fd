from django.db import models


class WishlistItemQuerySet(models.QuerySet):
    def of_user(self, user_id):
        """The wishlist of a user, newest first."""
        return self.filter(user_id=user_id).order_by("-created_at")


class NotificationQuerySet(models.QuerySet):
    def of_user(self, user_id):
        """The notifications of a user, newest first: the site's bell shows 20."""
        return self.filter(user_id=user_id).order_by("-created_at")

    def unread_of_user(self, user_id):
        """The notifications that a user has not read, unordered: for counting."""
        return self.filter(user_id=user_id, read=False)


class PushSubscriptionQuerySet(models.QuerySet):
    def at_endpoint(self, endpoint):
        """The subscription of a browser, one at most."""
        return self.filter(endpoint=endpoint)

    def of_user(self, user_id):
        """The push subscriptions of a user's browsers."""
        return self.filter(user_id=user_id)


class UserActivityQuerySet(models.QuerySet):
    def of_user(self, user_id):
        """The activities of a user, newest first."""
        return self.filter(user_id=user_id).order_by("-created_at")


class UserSessionQuerySet(models.QuerySet):
    def of_user(self, user_id):
        """The devices on which a user is signed in, last active first."""
        return self.filter(user_id=user_id).order_by("-last_active")


class LoginHistoryQuerySet(models.QuerySet):
    def of_user(self, user_id):
        """The sign-ins of a user, failed ones too, newest first."""
        return self.filter(user_id=user_id).order_by("-timestamp")
