import getpass

from django.contrib.auth import get_user_model
from django.contrib.auth.forms import SetPasswordForm
from django.contrib.auth.management.commands import changepassword
from django.core.management import CommandError
from django.db import connections

from fly2any.administration.forms import PasswordFormMixin
from fly2any.database.schema.write_refusals import refuse_before_writes

TRIES = 3


class PasswordForm(PasswordFormMixin, SetPasswordForm):
    pass


class Command(changepassword.Command):
    help = "Change a person's password, without overwriting concurrent changes by the site."

    def handle(self, *, username, database, **options):
        refuse_before_writes(connections[database])
        email = username or getpass.getuser()
        user = get_user_model()._default_manager.using(database).filter(email=email).first()
        if user is None:
            raise CommandError(f"No person has the e-mail address {email}: check the spelling.")
        self.stdout.write(f"Changing the password of {user}.")
        for _ in range(TRIES):
            form = PasswordForm(
                user, {"new_password1": getpass.getpass(), "new_password2": getpass.getpass("Password (again): ")}
            )
            if form.is_valid():
                form.save()
                return f"The password of {user} was changed."
            self.stderr.write("\n".join(str(message) for messages in form.errors.values() for message in messages))
        raise CommandError(f"Nothing was changed: no password was accepted in {TRIES} attempts.")
