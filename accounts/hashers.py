import bcrypt
from django.contrib.auth.hashers import BasePasswordHasher, mask_hash

LONGEST_PASSWORD = 72  # Bytes: bcrypt ignores the rest, and so does bcryptjs.


class BcryptHasher(BasePasswordHasher):
    """Raw bcrypt, `$2b$12$…`, as bcryptjs writes and reads it in the site.

    Django finds a hasher by what stands before the first `$`: here, nothing.
    """

    algorithm = ""
    rounds = 12

    def salt(self):
        return bcrypt.gensalt(self.rounds).decode("ascii")

    def encode(self, password, salt):
        return bcrypt.hashpw(password.encode()[:LONGEST_PASSWORD], salt.encode("ascii")).decode("ascii")

    def decode(self, encoded):
        _, version, rounds, rest = encoded.split("$")
        return {"algorithm": f"bcrypt {version}", "rounds": int(rounds), "salt": rest[:22], "hash": rest[22:]}

    def verify(self, password, encoded):
        try:
            return bcrypt.checkpw(password.encode()[:LONGEST_PASSWORD], encoded.encode("ascii"))
        except ValueError:  # Not bcrypt, whatever wrote it: nobody signs in with it.
            return False

    def safe_summary(self, encoded):
        decoded = self.decode(encoded)
        return {"algorithm": decoded["algorithm"], "rounds": decoded["rounds"], "hash": mask_hash(decoded["hash"])}

    def must_update(self, encoded):
        # Never rewritten at sign-in: the site's own hashes stay as the site wrote them.
        return False

    def harden_runtime(self, password, encoded):
        """Do nothing: a hash of fewer rounds is not made slower."""
