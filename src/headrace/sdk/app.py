"""The registry an author fills: one bounded context with its streams, functions and hooks.

In: declarations, checked as they are made. Out: `App.spec()`, plain values the host works with;
the handlers stay ordinary functions. Nothing is started here and no file is read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar, Unpack, overload

from msgspec import structs

from headrace.model.durations import Duration
from headrace.model.errors import Misuse, Refused
from headrace.model.function import AppSpec
from headrace.model.near_names import near
from headrace.model.policy import MAX_EVENT_BYTES
from headrace.model.route_conflicts import check_routes
from headrace.model.sizes import Size
from headrace.model.triggers.base import StreamTrigger, Trigger
from headrace.model.triggers.bus import Forward, HttpTarget, Rule
from headrace.model.triggers.files import Custom
from headrace.model.triggers.http import Bearer, Cors, PerClient, Proxy
from headrace.model.webhook_signature import Secret
from headrace.sdk.app_folder import folders
from headrace.sdk.bus_forward import forward_of
from headrace.sdk.custom_trigger import Emitter, custom_trigger
from headrace.sdk.declaration_checks import Declared
from headrace.sdk.declares import DeclaresAnswering, DeclaresFold, DeclaresReader, DeclaresWriter
from headrace.sdk.event import Event
from headrace.sdk.function_declarations import declare_function
from headrace.sdk.options import (
    FUNCTION_OPTIONS,
    FunctionSettings,
    ReaderSettings,
    WindowSettings,
    refuse_unknown,
)
from headrace.sdk.provided_values import Environment, check_env, provision_of
from headrace.sdk.publications import forget_sources, published_in
from headrace.sdk.queue import resolved
from headrace.sdk.resource import Resource
from headrace.sdk.routes import After, Before, decorator_function
from headrace.sdk.secret_names import secret_names
from headrace.sdk.settings import NOT_GIVEN, Setting
from headrace.sdk.source_location import here
from headrace.sdk.store import NO_DEFAULT, Store, declared_store
from headrace.sdk.stream import Stream, StreamSource, check_name
from headrace.sdk.stream_declarations import Streams
from headrace.sdk.window_declaration import declare_window
from headrace.sdk.windows import ClosedWindow, Windows

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")
Handler = TypeVar("Handler", bound=Callable[..., Any])
Source = TypeVar("Source", bound=Emitter)
Hook = TypeVar("Hook", bound=Callable[[], Any])

HOOKS = ("init", "on_suspend", "on_resume", "on_stop")
COROUTINE, GENERATOR = 0x80, 0x220
"""Flags of a code object: that of an `async def`; those of generators, plain and asynchronous."""


class App(Streams):
    """A bounded context with one owner. Made once per module, before its functions.

    Attributes:
        name: The context's name, first part of its functions' names.
        owner: Who answers for it.
        streams: Its own streams, by name.
        externals: Other apps' streams it meets, by name.
        closed: Where its window functions put windows that have closed, by name.
        functions: Its functions, by full name.
        triggers: Its custom triggers, by their generators.
        proxies: The paths it passes on to other services.
        forwards: Rules whose events go to a stream or an address, by name.
        hooks: What to call when an instance starts, suspends, resumes and stops.
        stores: What its functions share, by name.
        settings: What operators can set, by name.
        resources: What each instance opens for itself.
        secrets: The names of the secrets that each of its functions may ask for.

    Args:
        name: The context's name.
        owner: Who answers for it.
        env: Variables of the node that its code sees, besides `HOME`, `LANG`, `PATH`, `TZ` and their
            like: names and patterns (`["AWS_*"]`), or variables with their values (`{"K": "v"}`).
        secrets: Names of the secrets that each of its functions may ask for.

    Raises:
        Misuse: The name, `env` or `secrets` cannot be.
    """

    def __init__(
        self,
        name: str,
        owner: str = "",
        *,
        env: Environment = (),
        secrets: Sequence[str | Secret] = (),
    ) -> None:
        self.place = here()
        super().__init__(check_name(name, "an app", self.place))
        self.owner = owner
        self._env = check_env(env, self.place)
        self._provision = provision_of(name, self._env)
        self.secrets = secret_names(secrets, self.place)
        self._read_secret: Callable[[str], str] | None = None
        self.stores: dict[str, Store[Any]] = {}
        self.settings: dict[str, Setting[Any]] = {}
        self.resources: list[Resource[Any]] = []
        self._opened = AsyncExitStack()
        self._left_open: list[AsyncExitStack] = []
        self.functions: dict[str, Declared] = {}
        self._seen: dict[str, tuple[str, ...]] = {}
        self.triggers: dict[Callable[..., Any], Custom] = {}
        self.closed: dict[str, Stream[Any]] = {}
        self.proxies: list[Proxy] = []
        self.forwards: dict[str, Forward] = {}
        self._only: dict[Callable[[], Any], tuple[str | Callable[..., Any], ...]] = {}
        self.hooks: dict[str, list[Callable[[], Any]]] = {hook: [] for hook in HOOKS}

    def __repr__(self) -> str:
        return f"App({self.name!r})"

    @overload
    def store(
        self, name: str, value: type[T], *, default: T = ..., ttl: Duration | None = ...
    ) -> Store[T]: ...

    @overload
    def store(
        self, name: str, value: object = ..., *, default: Any = ..., ttl: Duration | None = ...
    ) -> Store[Any]: ...

    def store(
        self,
        name: str,
        value: Any = Any,
        *,
        default: Any = NO_DEFAULT,
        ttl: Duration | None = None,
    ) -> Store[Any]:
        """Declare a store: values by key that all functions of this app share, and no other app.

        A handler opens it with `context.store(...)`. What only one function needs is in `context.state`,
        without a declaration.

        Args:
            name: Letters, digits, `_` and `-`; unique in the app.
            value: The type of its values; what msgpack can encode.
            default: What a key begins with that nobody has written. Each run gets a copy of its own.
            ttl: The time a value is kept after it was written, such as `"30d"`; None until it is
                replaced.

        Raises:
            Misuse: The name is taken, or a setting cannot work.
        """
        place = here()
        store = declared_store(self.name, name, value, default=default, ttl=ttl, place=place)
        if name in self.stores:
            raise Misuse(f"{place}: app `{self.name}` has a store `{name}` already; share that one")
        self.stores[name] = store
        return store

    @overload
    def setting(self, name: str, type: type[T], default: T = ...) -> Setting[T]: ...

    @overload
    def setting(self, name: str, type: Any, default: T) -> Setting[T]: ...

    @overload
    def setting(self, name: str, type: Any) -> Setting[Any]: ...

    def setting(self, name: str, type: Any, default: Any = NOT_GIVEN) -> Setting[Any]:
        """Declare a value that operators choose; read it by `.value`, where it is needed.

        Operators set it in `[apps.NAME.settings]` of headrace.toml, in the variable
        `HEADRACE_APP_NAME_RATE`, or by `--set NAME.RATE=2`; the last of these wins.

        Args:
            name: Capital letters, digits and `_`, such as `RATE`.
            type: Such as `int`, `float`, `bool`, `str`, `list[str]`, an enum, `Path`, `timedelta`
                (written `"5m"`), or a struct for a table.
            default: Its value where operators give none; without a default the node refuses to
                start until they do.

        Raises:
            Misuse: The name cannot be, or what was given is not of the type.
        """
        place = here()
        if name in self.settings:
            raise Misuse(f"{place}: a setting `{name}` was declared before; declare it once")
        found: Setting[Any] = Setting(
            self.name, name, type, default, self._provision.settings, place
        )
        self.settings[name] = found
        return found

    @overload
    def resource(self, opens: Callable[[], Iterator[T]], /) -> Resource[T]: ...

    @overload
    def resource(self, opens: Callable[[], AbstractContextManager[T]], /) -> Resource[T]: ...

    @overload
    def resource(self, opens: Callable[[], AsyncIterator[T]], /) -> Resource[T]: ...

    @overload
    def resource(self, opens: Callable[[], AbstractAsyncContextManager[T]], /) -> Resource[T]: ...

    @overload
    def resource(self, opens: Callable[[], Awaitable[T]], /) -> Resource[T]: ...

    @overload
    def resource(self, opens: Callable[[], T], /) -> Resource[T]: ...

    def resource(self, opens: Callable[[], Any], /) -> Resource[Any]:
        """Declare what each instance opens once for itself, such as a database; read it by `.value`.

        It is opened at its first use in an instance, and closed after the `on_stop` hooks, the last
        one opened first. An instance that is killed closes nothing. One that needs an event loop is
        opened by `await`ing the resource, in an `async def` handler or hook.

        Args:
            opens: A generator function, whose `yield` gives the value and whose rest closes it; or a
                function that returns something with a `close` method, a context manager, which is
                entered, or any value; each of them may be asynchronous. It may be decorated with this.

        Raises:
            Misuse: It is not a function.
        """
        found: Resource[Any] = Resource(self.name, opens, here())
        self.resources.append(found)
        return found

    @property
    def folder(self) -> Path:
        """The folder of this app's own files, kept over restarts and reloads; no other app's code reaches it.

        It lies beneath the node's data folder (`files/NAME`) and is there for the hooks of `init` and
        for handlers, not while the code is imported. Without a node, in a test, it is a temporary
        folder, which each `World` begins empty.
        """
        return folders.folder(self.name)

    def secret(self, name: str) -> str:
        """The value of a secret that the app declares, in an instance: in `@app.init`, say.

        Raises:
            Refused: The app does not declare it.
            Misuse: No instance runs here: the module is being imported, or a test calls it.
        """
        if name not in self.secrets:
            raise Refused(
                f"app `{self.name}` does not declare the secret `{name}`{near(name, self.secrets)}; write "
                f'`App("{self.name}", secrets=["{name}"])`'
            )
        if self._read_secret is None:
            raise Misuse(
                f"the secret `{name}` cannot be had while the module is imported; read it in "
                f"`@{self.name}.init`, or in a handler with `context.secret`"
            )
        return self._read_secret(name)

    def lend(self, read_secret: Callable[[str], str]) -> None:
        """An instance is made of this app: its secrets are read so from now on."""
        self._read_secret = read_secret
        if self.resources:
            # Of an instance before this one, which died: in a test only.
            self._left_open.append(self._opened)
            self._opened = AsyncExitStack()
        for each in self.resources:
            each.lend(self._opened)

    async def close_left_open(self) -> None:
        """Close what instances before this one have opened and not closed."""
        while self._left_open:
            await self._left_open.pop().aclose()

    async def close_resources(self) -> None:
        """Close what the instance has opened, the last one first; what one raises comes out at the end."""
        try:
            await self._opened.aclose()
        finally:
            for each in self.resources:
                each.lend(None)
            await self.close_left_open()

    @property
    def awaits(self) -> bool:
        """Return whether one of its hooks is an `async def`."""
        return any(
            hook.__code__.co_flags & COROUTINE for hooks in self.hooks.values() for hook in hooks
        )

    def forward(self, rule: Rule, *, to: Stream[Any] | HttpTarget, name: str) -> None:
        """Send what a rule means to a stream of this app, or to an address, without a function.

        Args:
            rule: Which events, and as what.
            to: A stream (an archive, a topic), or `HttpTarget(url)`.
            name: Unique within the app.

        Raises:
            Misuse: Something cannot work; the message names it.
        """
        place = here()
        if name in self.forwards:
            raise Misuse(f"{place}: a forward `{name}` was declared before; give it another name")
        self.forwards[name] = forward_of(self.name, rule, to, name, place)

    @overload
    def function(
        self,
        source: Stream[T] | StreamSource[T],
        /,
        *,
        output: Stream[V],
        **options: Unpack[ReaderSettings],
    ) -> DeclaresWriter[T, V]: ...

    @overload
    def function(
        self,
        source: Stream[T] | StreamSource[T],
        /,
        *,
        output: None = None,
        **options: Unpack[ReaderSettings],
    ) -> DeclaresReader[T]: ...

    @overload
    def function(
        self,
        source: Stream[T] | StreamSource[T],
        second: Stream[U] | StreamSource[U],
        /,
        *,
        output: Stream[V],
        **options: Unpack[ReaderSettings],
    ) -> DeclaresWriter[T | U, V]: ...

    @overload
    def function(
        self,
        source: Stream[T] | StreamSource[T],
        second: Stream[U] | StreamSource[U],
        /,
        *,
        output: None = None,
        **options: Unpack[ReaderSettings],
    ) -> DeclaresReader[T | U]: ...

    @overload
    def function(
        self,
        source: Stream[Any] | StreamSource[Any],
        second: Stream[Any] | StreamSource[Any],
        third: Stream[Any] | StreamSource[Any],
        /,
        *more: Stream[Any] | StreamSource[Any],
        output: Stream[V],
        **options: Unpack[ReaderSettings],
    ) -> DeclaresWriter[Any, V]: ...

    @overload
    def function(
        self,
        source: Stream[Any] | StreamSource[Any],
        second: Stream[Any] | StreamSource[Any],
        third: Stream[Any] | StreamSource[Any],
        /,
        *more: Stream[Any] | StreamSource[Any],
        output: None = None,
        **options: Unpack[ReaderSettings],
    ) -> DeclaresReader[Any]: ...

    @overload
    def function(
        self,
        *,
        output: Stream[V],
        **options: Unpack[ReaderSettings],
    ) -> DeclaresAnswering[V]: ...

    @overload
    def function(
        self,
        *,
        output: None = None,
        **options: Unpack[ReaderSettings],
    ) -> Callable[[Handler], Handler]: ...

    @overload
    def function(
        self,
        source: Trigger | Emitter,
        /,
        *more: Stream[Any] | StreamSource[Any] | Trigger | Emitter,
        output: Stream[V],
        **options: Unpack[ReaderSettings],
    ) -> DeclaresAnswering[V]: ...

    @overload
    def function(
        self,
        source: Trigger | Emitter,
        /,
        *more: Stream[Any] | StreamSource[Any] | Trigger | Emitter,
        output: None = None,
        **options: Unpack[ReaderSettings],
    ) -> Callable[[Handler], Handler]: ...

    @overload
    def function(
        self,
        source: Stream[Any] | StreamSource[Any],
        trigger: Trigger | Emitter,
        /,
        *more: Stream[Any] | StreamSource[Any] | Trigger | Emitter,
        output: Stream[V],
        **options: Unpack[ReaderSettings],
    ) -> DeclaresAnswering[V]: ...

    @overload
    def function(
        self,
        source: Stream[Any] | StreamSource[Any],
        trigger: Trigger | Emitter,
        /,
        *more: Stream[Any] | StreamSource[Any] | Trigger | Emitter,
        output: None = None,
        **options: Unpack[ReaderSettings],
    ) -> Callable[[Handler], Handler]: ...

    def function(
        self,
        *sources: Stream[Any] | StreamSource[Any] | Trigger | Emitter,
        **options: Unpack[FunctionSettings],
    ) -> Any:
        """Declare the decorated handler a function; the handler itself stays as it is.

        Args:
            sources: What sets it off: streams it reads (`orders`, or `orders.read(start="latest")`), triggers such as `Cron("@daily")`, and
                generators declared with `trigger`; none makes a function that is only called.
            **options: How it runs (`batch_size`, `order`, `timeout`, `retry`, `scaling`, ...), and where
                its results go (`output`). The page on policies, options and limits says what each
                means, its default and range. None is the default, except `breaker=None`: never
                stop calling it.

        Raises:
            Misuse: Something cannot work; the message names file, line, cause and fix.
        """
        place = here()
        first: object = sources[0] if sources else None
        if callable(first) and first not in self.triggers:
            raise Misuse(
                f"{place}: `@{self.name}.function` lacks its parentheses; write `@{self.name}.function(stream)`"
            )
        refuse_unknown(options, place, "a function", FUNCTION_OPTIONS)

        def declare(handler: Handler) -> Handler:
            declare_function(self, handler, sources, options, place)
            return handler

        return declare

    @overload
    def source(self, emitter: Source, /) -> Source: ...

    @overload
    def source(
        self,
        /,
        *,
        every: Duration = ...,
        turn_events: int = ...,
        turn_time: Duration = ...,
        timeout: Duration = ...,
    ) -> Callable[[Source], Source]: ...

    def source(
        self,
        emitter: Source | None = None,
        /,
        *,
        every: Duration = 1.0,
        turn_events: int = 1_000,
        turn_time: Duration = 5.0,
        timeout: Duration = 60.0,
    ) -> Source | Callable[[Source], Source]:
        """Declare the decorated generator a source of events: `@app.function(the_generator)` listens to it.

        It is given its last checkpoint (None at first) and yields `Emit`s; what it said and the
        checkpoint are kept together, so that nothing is said twice or lost. It is started again from
        the checkpoint for every turn.

        Args:
            emitter: The generator, plain or asynchronous, where no setting is given.
            every: The time (such as `"5m"`) to the next turn when it had nothing more to say.
            turn_events: Events taken in one turn at most.
            turn_time: How long one turn may go on. A plain generator is asked only when it yields.
            timeout: The time after which a turn is given up, its instance killed.

        Raises:
            Misuse: It is not a generator of one parameter, or a setting is out of range.
        """
        place = here()

        def declare(emitter: Source) -> Source:
            declared, trigger = custom_trigger(
                self.name,
                emitter,
                every=every,
                turn_events=turn_events,
                turn_time=turn_time,
                timeout=timeout,
                place=place,
            )
            if trigger.function in self.functions:
                raise Misuse(
                    f"{place}: `{trigger.function}` was declared before, at "
                    f"{self.functions[trigger.function].shape.place}; give one another name"
                )
            self.functions[trigger.function] = declared
            self.triggers[emitter] = trigger
            return emitter

        return declare if emitter is None else declare(emitter)

    def window(
        self,
        source: Stream[T] | StreamSource[T],
        by: Windows,
        *,
        output: Stream[Any],
        lateness: Duration = 0.0,
        idle: Duration | None = None,
        late: Stream[Any] | None = None,
        combine: Callable[[Any, Any], Any] | None = None,
        close: Callable[[ClosedWindow], Any] | None = None,
        **options: Unpack[WindowSettings],
    ) -> DeclaresFold[T]:
        """Fold a stream's events into windows by event time and key; publish each when it closes.

        The decorated function is given what the window holds so far (None at first) and an event,
        and returns what it holds then. Its return annotation is the type of that.

        Args:
            source: The stream that is read, partition by partition, in order.
            by: `TumblingWindow(size)`, `HoppingWindow(size, step)` or `SessionWindow(gap)`.
            output: Takes a `ClosedWindow` (`key`, `start`, `end`, `value`) for each that closes, under
                its key, with its end as the event's time.
            lateness: The time by which events may come out of order.
            idle: The time without an event of a partition after which its open windows close; None
                leaves them open until an event closes them. Time in which the function is not
                deployed does not count.
            late: Takes the events whose windows have closed; None drops them.
            combine: Makes one of what two sessions hold, where an event joins them.
            close: Makes the published value of a `ClosedWindow`; None publishes nothing.
            **options: As for `function`.

        Raises:
            Misuse: Something cannot work; the message names it.
        """
        place = here()

        def declare(
            fold: Callable[[V | None, Event[T]], V], /
        ) -> Callable[[V | None, Event[T]], V]:
            declare_window(
                self,
                fold,
                source,
                by,
                output=output,
                lateness=lateness,
                idle=idle,
                late=late,
                combine=combine,
                close=close,
                options=options,
                place=place,
            )
            return fold

        return declare

    def proxy(
        self,
        path: str,
        *,
        upstream: str,
        before: Before | None = None,
        after: After | None = None,
        auth: Bearer | None = None,
        cors: Cors | None = None,
        rate: PerClient | None = None,
        max_bytes: Size = MAX_EVENT_BYTES,
        timeout: Duration = 30.0,
    ) -> None:
        """Let requests at `path` and beneath it go to another service, shaped on the way.

        Args:
            path: Such as `/legacy`; what follows it is put behind the upstream's address.
            upstream: The service's address.
            before: Takes a `Request`; returns the one that is sent, or a `Reply` that ends it.
            after: Takes the upstream's answer as a `Reply`; returns the one that is sent.
            auth: Who may come in.
            cors: Which other pages may call it from a browser.
            rate: How often one client may.
            max_bytes: Of a body, either way.
            timeout: The time until the upstream's answer must be whole.

        Raises:
            Misuse: Something cannot work; the message names the setting and the fix.
        """
        names = {"before": "", "after": ""}
        for kind, shaper in (("before", before), ("after", after)):
            if shaper is not None:
                declared = decorator_function(self.name, kind, shaper)
                name = names[kind] = declared.spec.name
                known = self.functions.get(name)
                if known is not None and known.shape.place != declared.shape.place:
                    raise Misuse(
                        f"`{name}` was declared before, at {known.shape.place}; rename one of them"
                    )
                self.functions[name] = declared
        proxy = Proxy(
            path=path,
            upstream=upstream,
            before=names["before"],
            after=names["after"],
            auth=auth,
            cors=cors,
            rate=rate,
            max_bytes=max_bytes,
            timeout=timeout,
        )
        check_routes([each.spec for each in self.functions.values()], [*self.proxies, proxy])
        self.proxies.append(proxy)

    @overload
    def init(self, hook: Hook, /) -> Hook: ...

    @overload
    def init(self, /, *, only: Sequence[str | Callable[..., Any]]) -> Callable[[Hook], Hook]: ...

    def init(
        self,
        hook: Hook | None = None,
        /,
        *,
        only: Sequence[str | Callable[..., Any]] | None = None,
    ) -> Hook | Callable[[Hook], Hook]:
        """Call the decorated hook once per instance, before its first invocation.

        An instance whose hook raises does not start: no run begins in it and no event uses an
        attempt, and another instance is tried a little later.

        Args:
            hook: A function without parameters, plain or `async def`, where `only` is not given.
            only: The functions, or their names, whose instances call it; by default all of the app's.

        Raises:
            Misuse: The hook takes parameters or is a generator. `spec` raises it for a
                function in `only` that the app does not have.
        """
        if hook is not None:
            return self._hook("init", hook)
        if isinstance(only, str) or not only:
            raise Misuse(
                f"{here()}: `@{self.name}.init(only={only!r})` names no functions; write "
                f"`@{self.name}.init(only=[function])`, or `@{self.name}.init` for all of them"
            )
        chosen = tuple(only)

        def declare(hook: Hook) -> Hook:
            self._hook("init", hook)
            self._only[hook] = chosen
            return hook

        return declare

    def init_hooks(self, function: str) -> list[Callable[[], Any]]:
        """The hooks that an instance of `function` (its full name) calls, in their order."""
        return [
            hook
            for hook in self.hooks["init"]
            if hook not in self._only
            or any(self._is_function(each, function) for each in self._only[hook])
        ]

    def _is_function(self, chosen: str | Callable[..., Any], function: str) -> bool:
        if isinstance(chosen, str):
            return function in (chosen, f"{self.name}.{chosen}")
        return self.functions[function].handler is chosen

    def _check_only(self) -> None:
        for hook, chosen in self._only.items():
            for each in chosen:
                if not any(self._is_function(each, name) for name in self.functions):
                    name = each if isinstance(each, str) else getattr(each, "__name__", repr(each))
                    raise Misuse(
                        f"`@{self.name}.init(only=...)` of `{getattr(hook, '__name__', hook)}` names "
                        f"`{name}`, which is not a function of this app"
                        f"{near(name, [known.partition('.')[2] for known in self.functions])}"
                    )

    def on_suspend(self, hook: Hook) -> Hook:
        """Call `hook` before an instance hibernates: close what must not go stale."""
        return self._hook("on_suspend", hook)

    def on_resume(self, hook: Hook) -> Hook:
        """Call `hook` when a hibernating instance is woken."""
        return self._hook("on_resume", hook)

    def on_stop(self, hook: Hook) -> Hook:
        """Call `hook` before an instance ends in good order."""
        return self._hook("on_stop", hook)

    def _hook(self, kind: str, hook: Hook) -> Hook:
        code = getattr(hook, "__code__", None)
        where = f"`{self.name}` ({here()})"
        if code is None or code.co_argcount - len(getattr(hook, "__defaults__", None) or ()):
            raise Misuse(f"{where}: `@{self.name}.{kind}` takes a function without parameters")
        if code.co_flags & GENERATOR:
            raise Misuse(
                f"{where}: `@{self.name}.{kind}` takes a function, not a generator; what is opened and "
                f"closed is a resource: `@{self.name}.resource`"
            )
        self.hooks[kind].append(hook)
        return hook

    def _in_code(self, function: str) -> tuple[str, ...]:
        found = self._seen.get(function)
        if found is None:
            known = {each.name for each in (*self.streams.values(), *self.externals.values())}
            found = self._seen[function] = published_in(self.functions[function].handler, known)
        return found

    def spec(self, version: str = "") -> AppSpec:
        """Everything declared, as plain values; `version` is the code's hash.

        Raises:
            Misuse: `init(only=...)` names what is not a function of this app.
        """
        self._check_only()
        heard = {
            name
            for declared in self.functions.values()
            for trigger in declared.spec.triggers
            if isinstance(trigger, StreamTrigger)
            for name in trigger.streams
        }
        seen = {name: self._in_code(name) for name in self.functions}
        forget_sources()
        return AppSpec(
            name=self.name,
            owner=self.owner,
            version=version,
            streams=tuple(resolved(stream.spec, heard) for stream in self.streams.values()),
            functions=tuple(
                structs.replace(
                    declared.spec,
                    version=version,
                    secrets=tuple(dict.fromkeys((*self.secrets, *declared.spec.secrets))),
                    stores=tuple(self.stores),
                    in_code=seen[name],
                )
                for name, declared in self.functions.items()
            ),
            proxies=tuple(self.proxies),
            forwards=tuple(self.forwards.values()),
            settings=tuple(setting.spec for setting in self.settings.values()),
            env=tuple(self._env),
            secrets=self.secrets,
            stores=tuple(store.spec for store in self.stores.values()),
            generation=self._provision.generation,
        )
