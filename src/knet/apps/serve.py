"""Serves the page of `knet demo --serve`: to this machine alone unless told otherwise, without a call to any other."""

import ipaddress
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module, resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from knet.apps.limits import Limits
from knet.errors import ConfigError

_logger = logging.getLogger("knet")
_PORTS = range(7860, 7960)
# The parts of gradio that the page needs. All others, which also hand out files and fetch addresses, are not there.
_OWN = ("", "results", "assets", "static", "svelte", "config", "theme.css", "favicon.ico", "manifest.json")
_QUEUE = ("queue", "upload", "upload_progress", "heartbeat", "cancel", "reset", "info", "startup-events", "app_id")
_HEADERS = {
    "content-security-policy": "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'; object-src 'none'; base-uri 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def require_gradio() -> None:
    """Raises `ConfigError` where the package is missing."""
    if not find_spec("gradio"):
        raise ConfigError("The page needs the package 'gradio': pip install 'knet[demo]'.")


class Guard:
    """Lets through what the page needs, and tells browsers to fetch nothing from elsewhere. An ASGI middleware.

    Args:
        app: what is guarded.
        hosts: names by which the page may be asked for, so that pages of others cannot reach it under theirs; None for
            all.
        folder: where uploads go.
        limits: of what lies there.
    """

    def __init__(self, app: Any, hosts: Sequence[str] | None, folder: Path, limits: Limits):
        self.app, self.hosts, self.folder, self.limits = app, hosts, folder, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _answer(send, *refusal)
            return

        async def with_headers(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = [(key.encode(), value.encode()) for key, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *headers]}
            await send(message)

        await self.app(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and sentence for what is not answered."""
        host = next((value.decode("latin-1") for key, value in scope["headers"] if key == b"host"), "")
        if self.hosts is not None and host.rsplit(":", 1)[0] not in self.hosts:
            return 403, "This page is for the machine that it runs on."
        first, _, rest = scope["path"].strip("/").partition("/")
        if ".." in rest or not (rest.partition("/")[0] in _QUEUE if first == "gradio_api" else first in _OWN):
            return 404, "There is no such page."
        if rest == "upload" and _stored(self.folder) > self.limits.stored_megabytes * 1e6:
            return 413, "There is no room for another file; wait until others are done."
        return None


async def _answer(send: Send, status: int, sentence: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": sentence.encode()})


def _stored(folder: Path) -> int:
    """Bytes of all files in a folder."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # it was deleted meanwhile
            total += path.stat().st_size
    return total


@contextmanager
def serving(
    models: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> Iterator[str]:
    """Serves the page while the block lasts, and gives its address. Afterwards nothing is left of it.

    Args:
        models: names and files of models that the page has as well as those at hand.
        host: the address to listen on.
        port: the port; by default the first from 7860 on that is free. 0 takes any.
        limits: of what visitors may give.
        options: for `knet.load`: device, threads.

    Raises:
        ConfigError: gradio is missing, or nothing can listen on the host and port.
        KNetError: one of the models cannot be loaded.
    """
    require_gradio()
    limits, port = limits or Limits(), free_port(host, port)
    from knet.apps.shelf import Shelf
    from knet.apps.visits import Visits

    shelf = Shelf(models, **options)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="knet-page-", ignore_cleanup_errors=True)))
        stack.enter_context(_environment(folder, host))
        from knet.apps.page import asset, build, theme

        examples = stack.enter_context(resources.as_file(resources.files("knet") / "assets" / "demo"))
        visits = Visits(folder, limits)
        page = build(shelf, visits, limits, examples)
        guard = {"hosts": _hosts(host), "folder": folder, "limits": limits}
        middleware, routing = import_module("starlette.middleware"), import_module("starlette.routing")
        route = routing.Route("/results/{token}/{number:int}/{name}", result_file(visits))
        stack.callback(page.close, verbose=False)
        stack.callback(visits.close)
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            show_error=False,  # the page says what is wrong itself, and nobody is told of paths
            allowed_paths=[str(examples)],
            max_file_size=f"{limits.megabytes}mb",
            state_session_capacity=limits.visits,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            theme=theme(),
            css=asset("page.css"),
            app_kwargs={
                "middleware": [middleware.Middleware(Guard, **guard)],
                "routes": [route],
                "docs_url": None,
                "redoc_url": None,
                "openapi_url": None,
            },
        )
        yield url


def serve(models: Sequence[str], host: str, port: int | None, **options: Any) -> None:
    """Serves the page until Ctrl-C or SIGTERM; see `serving`."""
    with serving(models, host, port, **options) as url:
        if not loopback(host):
            _logger.warning(f"Everybody who reaches this machine ({host}) can use the page; Ctrl-C ends it.")
        _logger.info(f"The page is at {url} (Ctrl-C ends it)")
        threading.Event().wait()


def result_file(visits: Any) -> Callable[[Any], Any]:
    """What answers `/results/...`: the files of visits, and nothing that is not in their lists."""
    responses = import_module("starlette.responses")

    def answer(request: Any) -> Any:
        asked = request.path_params
        path = visits.file(asked["token"], asked["number"], asked["name"])
        if path is None or not path.is_file():
            return responses.PlainTextResponse("There is no such file.", status_code=404)
        return responses.FileResponse(path, headers={"cache-control": "no-store"})

    return answer


def loopback(host: str) -> bool:
    """Whether an address is this machine's own, which no other can reach."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _hosts(host: str) -> Sequence[str] | None:
    return [host, "localhost", "127.0.0.1", "[::1]"] if loopback(host) else None


def free_port(host: str, port: int | None) -> int:
    """The port, if something can listen there, or else one that is free. Raises `ConfigError` if there is none."""
    for candidate in _PORTS if port is None else [port]:
        try:
            family = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, candidate))
                return probe.getsockname()[1]
        except (OSError, OverflowError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
    which = f"the port {port}" if port is not None else f"any port from {_PORTS[0]} to {_PORTS[-1]}"
    raise ConfigError(f"Cannot listen on '{host}' at {which}: {reason}; give another --port or --host.")


@contextmanager
def _environment(folder: Path, host: str) -> Iterator[None]:
    """While this lasts, gradio keeps its files in a folder, and calls nobody."""
    wanted = {
        "GRADIO_TEMP_DIR": str(folder / "uploads"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), host, "127.0.0.1", "localhost"])),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ |= wanted
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
