"""Where Redis is, and how to log in there."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import msgspec

DEFAULT_PORT = 6379
FORMS = "redis://[user:password@]host[:port][/db], rediss://..., unix:///path[?db=N] or host:port"

_SCHEMES = ("redis", "rediss", "unix")
_TLS_OPTIONS = {"ssl_ca_certs": "ca_file", "ssl_certfile": "certificate_file", "ssl_keyfile": "key_file"}
_PASSWORD = re.compile(r"(://|^)[^/@]*@")


class Address(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """A Redis server and database. Text made from it never shows the password; only `url()` does."""

    scheme: str = "redis"
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    path: str = ""
    username: str = ""
    password: str = ""
    database: int = 0
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""

    @classmethod
    def unix(cls, path: str) -> Address:
        return cls(scheme="unix", host="", port=0, path=path)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads a URL, or bare `host:port`. Raises ValueError with a sentence that does not repeat a password."""
        if not isinstance(text, str):
            raise TypeError(f"A Redis address is text, not {type(text).__name__}.")
        scheme, separator, _ = text.partition("://")
        if not separator:
            return cls._parse_url(text, "redis://" + text)
        if scheme not in _SCHEMES:
            raise _bad(text, f"unknown scheme '{scheme}'")
        return cls._parse_url(text, text)

    @classmethod
    def _parse_url(cls, text: str, url: str) -> Address:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _bad(text, "the port or the host is wrong") from None
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        login = {"username": unquote(parts.username or ""), "password": unquote(parts.password or "")}
        if parts.scheme == "unix":
            if parts.hostname or not parts.path.strip("/"):
                raise _bad(text, "a socket needs an absolute path after unix://")
            database = _database(text, options.pop("db", "0"))
            _no_further(text, options)
            return cls(scheme="unix", host="", port=0, path=unquote(parts.path), database=database, **login)
        if not parts.hostname or re.search(r"\s", parts.netloc):
            raise _bad(text, "the host is missing")
        if port == 0:
            raise _bad(text, "the port is 0")
        database = _database(text, options.pop("db", "") or parts.path.strip("/") or "0")
        files = {}
        if parts.scheme == "rediss":
            files = {field: options.pop(option) for option, field in _TLS_OPTIONS.items() if option in options}
        _no_further(text, options)
        return cls(
            scheme=parts.scheme, host=parts.hostname, port=port or DEFAULT_PORT, database=database, **login, **files
        )

    def url(self) -> str:
        """The whole address with its secrets: for child processes and configuration files, never for people."""
        return self._text(f"{quote(self.username, safe='')}:{quote(self.password, safe='')}@" if self._login else "")

    @property
    def _login(self) -> bool:
        return bool(self.username or self.password)

    def _text(self, login: str) -> str:
        options = {option: getattr(self, field) for option, field in _TLS_OPTIONS.items() if getattr(self, field)}
        if self.scheme == "unix":
            options = {"db": self.database} if self.database else {}
            return f"unix://{login}{quote(self.path)}" + (f"?{urlencode(options)}" if options else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        database = f"/{self.database}" if self.database else ""
        return f"{self.scheme}://{login}{host}:{self.port}{database}" + (f"?{urlencode(options)}" if options else "")

    def __str__(self) -> str:
        return self._text(f"{self.username}:***@" if self._login else "")

    def __repr__(self) -> str:
        return f"Address({self})"


def _bad(text: str, reason: str) -> ValueError:
    shown = _PASSWORD.sub(r"\1***@", text)
    return ValueError(f"'{shown}' is not a Redis address ({reason}): use {FORMS}.")


def _database(text: str, number: str) -> int:
    if not (number.isascii() and number.isdigit()):
        raise _bad(text, "the database is a number from 0 upwards")
    return int(number)


def _no_further(text: str, options: dict[str, str]) -> None:
    if options:
        raise _bad(text, f"unknown option '{next(iter(options))}'")
