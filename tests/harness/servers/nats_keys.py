"""Keys and credentials for NATS: nkeys, and the JWTs of an operator, its account and its users."""

from __future__ import annotations

import base64
import json
import os
import time
from typing import Any

import nkeys


class Key:
    """A key pair of NATS.

    Args:
        prefix: What it is for: one of the `PREFIX_BYTE_*` of nkeys.
    """

    def __init__(self, prefix: int = nkeys.PREFIX_BYTE_USER) -> None:
        self.seed: str = nkeys.encode_seed(os.urandom(32), prefix).decode()
        self._pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public: str = self._pair.public_key.decode()

    def jwt(self, subject: Key, claims: dict[str, Any], **registered: object) -> str:
        """Return a JWT about another key, signed with this one."""
        issued = {
            "iat": int(time.time()),
            "iss": self.public,
            "sub": subject.public,
            "jti": os.urandom(8).hex(),
        }
        payload = issued | registered | {"nats": {"version": 2, **claims}}
        parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, payload]
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
        return f"{signed}.{_encoded(self._pair.sign(signed.encode()))}"


class Account:
    """An account of an operator, and the credentials of its users."""

    def __init__(self) -> None:
        self._operator = Key(nkeys.PREFIX_BYTE_OPERATOR)
        # A reload must not change it.
        self._operator_jwt = self._operator.jwt(self._operator, {"type": "operator"})
        self._key = Key(nkeys.PREFIX_BYTE_ACCOUNT)
        self._users: list[Key] = []
        self._revoked: list[Key] = []

    @property
    def config(self) -> str:
        """The part of the server's configuration that trusts the operator and knows the account."""
        unlimited = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
        limits = {"wildcards": True, **dict.fromkeys(unlimited, -1)}
        revocations = {user.public: int(time.time()) for user in self._revoked}
        claims = {"type": "account", "limits": limits, "revocations": revocations}
        lines = (
            f"operator: {self._operator_jwt}",
            "resolver: MEMORY",
            f"resolver_preload: {{ {self._key.public}: {self._operator.jwt(self._key, claims)} }}",
        )
        return "\n".join(lines)

    def revoke(self) -> None:
        """Reject all credentials that were issued until now. A server needs the new `config`."""
        self._revoked += self._users

    def credentials(self, seconds: int | None = None) -> str:
        """Return the content of a credentials file for a new user.

        Args:
            seconds: How long they are valid; for ever by default.
        """
        user = Key()
        self._users.append(user)
        unlimited = dict.fromkeys(("subs", "data", "payload"), -1)
        expires = {} if seconds is None else {"exp": int(time.time()) + seconds}
        jwt = self._key.jwt(user, {"type": "user", "pub": {}, "sub": {}, **unlimited}, **expires)
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
