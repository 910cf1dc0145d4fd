from accounts import passwords


def use():
    """Hash passwords with 2^4 rounds instead of 2^12, here and in forked commands: that was a twentieth of a run's time."""
    passwords.ROUNDS = 4
    passwords.NOBODYS_HASH = passwords.NOBODYS_HASH.replace("$12$", "$04$")
