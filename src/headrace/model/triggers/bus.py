"""The event bus as authors write it: `Rule` (which events, as what), `HttpTarget` (a target), `Forward`.

They are values; patterns, paths and templates are read by `services/bus` when the app is deployed.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import force_setattr

from headrace.model.durations import Seconds, keep_seconds
from headrace.model.errors import Misuse
from headrace.model.policy import Retry
from headrace.model.policy_struct import PolicyStruct, default
from headrace.model.webhook_signature import Secret

DEFAULT_BUS: Final = "default"
MAX_RULE_STREAMS: Final = 100
MAX_PATHS: Final = 100
MAX_TEMPLATE: Final = 8_192
MAX_HTTP_TIMEOUT_S: Final = 300.0


class Rule(PolicyStruct, frozen=True, tag="rule"):
    """An event on a bus (or any public stream) matches a pattern. A trigger, or a forward's rule.

    It begins with what is published after it was first deployed; `headrace bus replay` brings it older
    events. At most one of `path` and `template`; without either, events arrive as they were
    published.

    Attributes:
        pattern: An EventBridge pattern, put to the event as a bus shows it: `id`, `source`,
            `detail-type`, `time`, `detail`, and `stream`, `key`, `headers`.
        bus: The bus to watch.
        streams: Streams (or their names) to watch instead of the bus; at most 100.
        path: A JSON path (`$.detail.order`); what stands there becomes the value. AWS: `InputPath`.
        paths: Names for JSON paths, to be used in `template`. AWS: `InputPathsMap`.
        template: JSON, or a text in quotes, with `<name>` where the values go. AWS: `InputTemplate`.
    """

    pattern: dict[str, Any]
    bus: Any = DEFAULT_BUS
    streams: Any = ()
    path: str | None = None
    paths: dict[str, str] = msgspec.field(default_factory=dict)
    template: str | None = None

    def __post_init__(self) -> None:
        """Keep names instead of streams, and refuse what contradicts itself.

        Raises:
            Misuse: Naming the setting and the fix.
        """
        if not isinstance(self.pattern, dict):
            raise Misuse(f"`Rule({self.pattern!r})`: a pattern is a dict of what must match")
        force_setattr(self, "bus", getattr(self.bus, "name", self.bus))
        given = self.streams if isinstance(self.streams, (tuple, list)) else (self.streams,)
        named = [getattr(each, "name", each) for each in given]
        for name in (self.bus, *named):
            if not isinstance(name, str) or not name or name.startswith("_"):
                raise Misuse(f"`Rule`: {name!r} is not a public stream; name a bus or a stream")
        names = tuple(dict.fromkeys(named))
        if len(names) > MAX_RULE_STREAMS:
            raise Misuse(
                f"`Rule`: {len(names)} streams are watched; use at most {MAX_RULE_STREAMS}"
            )
        force_setattr(self, "streams", names)
        if self.path is not None and self.template is not None:
            raise Misuse("`Rule`: `path=` and `template=` both say what to hand over; use one")
        if self.paths and self.template is None:
            raise Misuse("`Rule`: `paths=` names values for a `template=`, which is missing")
        if len(self.paths) > MAX_PATHS or len(self.template or "") > MAX_TEMPLATE:
            raise Misuse(
                f"`Rule`: use at most {MAX_PATHS} `paths` and {MAX_TEMPLATE} characters of template"
            )

    @property
    def watched(self) -> tuple[str, ...]:
        """The streams whose events are put to the pattern."""
        found: tuple[str, ...] = self.streams or (self.bus,)
        return found


class HttpTarget(PolicyStruct, frozen=True, tag="http"):
    """A target of a forward: each event is sent by POST, one after the other.

    An answer of 2xx is success. 408, 429, 5xx and a broken connection are tried again as `retry`
    says; any other answer, and a spent retry, makes the event a dead letter of the forward.

    Attributes:
        url: `http://` or `https://`; redirects are not followed.
        headers: Sent with every request, besides `ce-id`, `ce-source`, `ce-type`, `ce-time` and
            `Idempotency-Key`. `Secret("PARTNER")` in the place of a value sends what that secret is.
        timeout: How long one request may take, up to 300 s.
        retry: When a failed request is made again.
    """

    url: str
    headers: dict[str, str | Secret] = msgspec.field(default_factory=dict)
    timeout: Seconds = default(10.0)
    retry: Retry = Retry(attempts=10, initial_delay=1.0, max_delay=300.0)

    def __post_init__(self) -> None:
        """Refuse what no request can be made of.

        Raises:
            Misuse: Naming the setting and the fix.
        """
        try:
            parts = urlsplit(self.url)
            fine = parts.scheme in {"http", "https"} and bool(parts.hostname)
            fine = fine and (parts.port is None or parts.port > 0)
        except (TypeError, ValueError, AttributeError):
            fine = False
        if not fine or any(ord(char) <= 32 for char in self.url):
            raise Misuse(f'`HttpTarget({self.url!r})` is not an address; write "https://host/path"')
        for name, value in self.headers.items():
            if isinstance(value, Secret):
                value = ""
            if not (name.isascii() and value.isascii() and (name + value).isprintable()):
                raise Misuse(f"`HttpTarget({self.url!r})`: header `{name}` is not plain ASCII text")
        what = f"`timeout=` of `HttpTarget({self.url!r})`"
        keep_seconds(self, "timeout", low=0.001, high=MAX_HTTP_TIMEOUT_S, what=what)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The secrets that are sent."""
        return tuple(each for each in self.headers.values() if isinstance(each, Secret))


class Forward(msgspec.Struct, frozen=True):
    """A rule whose events go somewhere without a function.

    Attributes:
        name: The full name, `app.forward`.
        rule: Which events, and as what.
        stream: The stream they are appended to, in the transaction that moves the bus's position.
        http: Or the address they are sent to.
    """

    name: str
    rule: Rule
    stream: str | None = None
    http: HttpTarget | None = None
