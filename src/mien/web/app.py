"""Serving the page: on one's own machine, to oneself, until Ctrl-C; nothing leaves it and nothing stays."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mien.errors import MienError, need

if TYPE_CHECKING:
    from types import FrameType

    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from mien.web.answers import Service

#: The largest file that the page takes.
LARGEST = "64mb"
#: What the browser may load: this page's own parts and what stands in it. gradio needs inline scripts and styles.
POLICY = "; ".join(
    (
        "default-src 'self' data: blob:",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "object-src 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
#: What the page consists of. gradio offers more, which could fetch from elsewhere, record and write down.
SERVED = re.compile(
    r"/(|config|theme\.css|manifest\.json|favicon\.ico|robots\.txt|(assets|static)/.*|gradio_api/("
    r"info|app_id|upload|upload_progress|file=(?!https?:).*|heartbeat/\w+|queue/(join|data)|cancel|reset))"
)
#: Ports that an address leaves out.
PORTS = {"http": 80, "https": 443}
#: Names of this machine for itself.
LOCAL = ("127.0.0.1", "localhost", "::1")
#: gradio's cards for social networks: the only outside hosts that its page names.
_CARDS = re.compile(rb'<meta\s+(?:property|name)="(?:og|twitter):[^>]*>\s*', re.DOTALL)


def require_web() -> None:
    """Make gradio importable, and silent: it asks its makers for news unless it is told not to before.

    Raises:
        MienError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    need("gradio", "web")


def build_app(service: Service, shipped: Sequence[Mapping[str, Any]], local: bool = False) -> FastAPI:
    """The page as an ASGI application; `shipped` as in `page.build_page`, `local` as in `Indoors`."""
    require_web()
    import gradio
    from fastapi import FastAPI

    from mien.web.page import STYLE, build_page, theme

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)  # its pages of documentation come from a CDN
    app.add_middleware(Indoors, local=local)
    return gradio.mount_gradio_app(
        app,
        build_page(service, shipped),
        "/",
        footer_links=[],
        run_history=False,  # it would keep pictures in the browser
        app_kwargs={"openapi_url": None},
        show_error=False,
        max_file_size=LARGEST,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css=STYLE.read_text(encoding="utf-8"),
    )


class Indoors:
    """Keeps page and browser indoors: nothing but the page's own parts is served, and to no page of another site, the
    browser is told to load nothing from other hosts and to keep no photo, and the page names no host.

    With `local` the page waits on this machine alone, and must be asked for by its name: another name that leads here
    is another site's (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, local: bool = False) -> None:
        self.app = app
        self.local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refused = (404, b"no part of this page") if not SERVED.fullmatch(scope["path"]) else None
        if self._of_another_site(scope):
            refused = 403, b"asked by another site"
        if refused is not None:
            status, why = refused
            await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": why})
            return
        page = scope["path"] == "/"
        start: Message = {}
        body = b""
        if page:  # plain, so that it can be read on its way
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]

        async def pass_on(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                kept = [(b"cache-control", b"no-store")] if "/file=" in scope["path"] else []
                message = {**message, "headers": [*message["headers"], *HEADERS, *kept]}
                if page:  # its length is not known yet
                    start = message
                    return
            elif page and message["type"] == "http.response.body":
                body += message.get("body", b"")
                if message.get("more_body"):
                    return
                body = _CARDS.sub(b"", body)
                others = [(name, value) for name, value in start["headers"] if name != b"content-length"]
                await send({**start, "headers": [*others, (b"content-length", str(len(body)).encode())]})
                message = {"type": "http.response.body", "body": body}
            await send(message)

        await self.app(scope, receive, pass_on)

    def _of_another_site(self, scope: Scope) -> bool:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        try:
            host = urlsplit(f"{scope.get('scheme', 'http')}://{headers.get(b'host', '')}")
            origin = urlsplit(headers[b"origin"]) if b"origin" in headers else host
            here, there = ((one.hostname, one.port or PORTS.get(one.scheme)) for one in (host, origin))
        except ValueError:  # no address at all
            return True
        return here != there or (self.local and here[0] not in LOCAL)


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that waits at `host` and `port` (0: any that is free).

    Raises:
        MienError: the port is taken, or one may not wait there.
    """
    try:
        waiting = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise _refused(error, host, port) from None
    with waiting:
        yield waiting


def _refused(error: OSError, host: str, port: int) -> MienError:
    if error.errno == errno.EADDRINUSE:
        other = port + 1 if port < 65535 else 7860
        return MienError(
            f"port {port} of {host} is in use, perhaps by another mien serve; end that, or take another: --port {other}"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return MienError(f"port {port} of {host} needs more rights than yours; take one from 1024 on: --port 7860")
    return MienError(
        f"host {host!r} is no address of this machine; expected 127.0.0.1 (this machine alone) or 0.0.0.0 (whoever "
        "reaches it)"
    )


def serve(
    service: Service, shipped: Sequence[Mapping[str, Any]], waiting: socket.socket, ready: Callable[[str], None]
) -> None:
    """Serve the page on `waiting` until Ctrl-C, or SIGTERM, raises KeyboardInterrupt; `ready` is told the address."""
    require_web()
    import gradio
    import uvicorn

    app = build_app(service, shipped, local=waiting.getsockname()[0] in LOCAL)
    page = next(part for route in app.routes if isinstance(part := getattr(route, "app", None), gradio.routes.App))

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            page.stop_event.set()  # each open page holds a connection, for which uvicorn would wait
            super().handle_exit(sig, frame)

    server = Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=5))
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it cleans up as well
    try:
        ready(address(waiting))
        server.run(sockets=[waiting])
    finally:
        signal.signal(signal.SIGTERM, before)


def address(waiting: socket.socket) -> str:
    """What to type into a browser on this machine."""
    host, port = waiting.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def nothing_kept() -> Iterator[str]:
    """A folder, readable by its owner alone, for what gradio writes down; it is removed at the end with all in it."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="mien-serve-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield folder
        finally:
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before
