"""Frame of every page of the console: the head with its links, the style sheet, and the policy.

In: a title and a body of HTML. There is no script, no form and no file besides the page,
and the policy says so to the browser: what a user's text might smuggle in cannot run or load.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

STYLE = """
:root{color-scheme:light dark;--ink:#1c2733;--soft:#56646f;--line:#d5dde5;--paper:#fff;--wash:#f5f7f9;
--stream:#e3f0fb;--edge:#7f95a9;--function:#fdf1dc;--bad:#b3261e;--pale:#fbe9e7;--good:#1d7a46;--link:#14568c}
@media(prefers-color-scheme:dark){:root{--ink:#e4eaf0;--soft:#9aa9b8;--line:#33414f;--paper:#151c23;
--wash:#1c252e;--stream:#1d3a55;--edge:#6d8298;--function:#4a3a1c;--bad:#ff8a80;--pale:#4b2320;
--good:#7bd8a3;--link:#8ec5f5}}
*{box-sizing:border-box}body{margin:0;font:14px/1.45 system-ui,sans-serif;color:var(--ink);
background:var(--paper)}header{padding:12px 22px 0;border-bottom:1px solid var(--line);background:var(--wash)}
h1{font-size:18px;margin:0}header p{margin:2px 0 0;color:var(--soft)}main{padding:2px 22px 40px}
nav{display:flex;flex-wrap:wrap;gap:2px 18px;margin-top:8px}nav a{padding:4px 0 6px;color:var(--soft);
border-bottom:2px solid transparent}nav a.here{color:var(--ink);border-color:var(--edge);font-weight:600}
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}a:focus-visible{outline:2px solid}
h2{font-size:14px;margin:24px 0 6px}section{overflow-x:auto}section p{margin:4px 0;color:var(--soft)}
table{border-collapse:collapse;min-width:100%}
th,td{text-align:left;padding:4px 14px 4px 0;border-bottom:1px solid var(--line);white-space:nowrap;
vertical-align:top}th{color:var(--soft);font-weight:500;font-size:12px}td:last-child,th:last-child{padding-right:0}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}td.wide{white-space:normal;min-width:14em;
overflow-wrap:anywhere}code,pre{font-family:ui-monospace,monospace;font-size:12.5px}
pre{background:var(--wash);border:1px solid var(--line);padding:8px 10px;margin:4px 0;overflow-x:auto;
white-space:pre-wrap;overflow-wrap:anywhere}
.bad{color:var(--bad)}.good{color:var(--good)}.soft{color:var(--soft)}.ways a{margin-right:14px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:3px 18px;margin:4px 0}dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}
svg text{font:600 12px system-ui,sans-serif;text-anchor:middle;fill:var(--ink)}svg .note{font-weight:400;
font-size:10.5px;fill:var(--soft)}svg .flow{font-weight:400;font-size:10.5px;
fill:var(--soft);paint-order:stroke;stroke:var(--paper);stroke-width:4px}svg .flow.bad{fill:var(--bad)}
svg rect{stroke:var(--edge)}.stream rect{fill:var(--stream)}.function rect{fill:var(--function)}
svg .bad rect{stroke:var(--bad);fill:var(--pale)}svg .bad .note{fill:var(--bad)}
svg path{fill:none;stroke:var(--edge);stroke-width:1.4}
svg .back{stroke-dasharray:5 4}svg .watch{stroke-dasharray:1 4}svg .tip{fill:var(--edge);stroke:none}
@media(max-width:720px){header{padding:10px 14px 0}main{padding:2px 14px 30px}nav{gap:2px 11px;font-size:13px}
.more,thead{display:none}table,tbody{display:block}tr{display:block;padding:5px 0;
border-bottom:1px solid var(--line)}td{display:inline-block;border:0;padding:1px 12px 1px 0;white-space:normal;
overflow-wrap:anywhere}td.wide{display:block;min-width:0}td.n{text-align:left}
td.n::before{content:attr(data-head) " ";color:var(--soft);font-size:12px}}
"""
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'"
)
"""The pages' Content-Security-Policy: their own style sheet and nothing else."""
WAYS = {
    "Overview": "/console",
    "Streams": "/console/streams",
    "Triggers": "/console/triggers",
    "Queues": "/console/queues",
    "Failures": "/console/failures",
    "Runs": "/console/runs",
}


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Contents of a page's head: the node's name and its health."""

    version: str
    ready: bool
    reason: str
    apps: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Contents of a page below its head.

    Attributes:
        title: Its heading.
        pieces: Its HTML, a row or less at a time: each is made when it is asked for, so that a long page does not block the event loop.
        way: Which of the ways to go is marked; "" for none.
        refresh_s: How often a page that shows what moves asks again by itself, in seconds; 0 for never.
    """

    title: str
    pieces: Iterable[Markup]
    way: str = ""
    refresh_s: int = 0


def document(frame: Frame, sheet: Sheet) -> Markup:
    """A whole page."""
    before, after = around(frame, sheet)
    return Markup().join((before, *sheet.pieces, after))


def around(frame: Frame, sheet: Sheet) -> tuple[Markup, Markup]:
    """Return the HTML before a page's pieces, and after them."""
    title, way = sheet.title, sheet.way
    state = (
        Markup('<span class="good">ready</span>')
        if frame.ready
        else Markup('<span class="bad">not ready: {}</span>').format(frame.reason)
    )
    apps = Markup(", ").join(Markup("<b>{}</b>").format(name) for name in frame.apps)
    ways = Markup().join(
        Markup('<a href="{}"{}>{}</a>').format(
            address, Markup(" class=here") if name == way else "", name
        )
        for name, address in WAYS.items()
    )
    again = Markup('<meta http-equiv="refresh" content="{}">').format(sheet.refresh_s)
    before = Markup(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">{again}'
        "<title>{title} · Headrace</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<style>{style}</style></head><body><header><h1>Headrace</h1><p>{state} · {apps} · "
        "version {version} · times in UTC</p><nav>{ways}</nav></header>"
        "<main>{heading}"
    ).format(
        again=again if sheet.refresh_s else "",
        title=title,
        style=Markup(STYLE),
        state=state,
        apps=apps or "no app",
        version=frame.version,
        ways=ways,
        heading="" if title == way else Markup("<h2>{}</h2>").format(title),
    )
    return before, Markup("</main></body></html>")


def bare_document(title: str, text: str) -> Markup:
    """A page with one sentence, for a client that is not let in: it shows nothing of the node."""
    return Markup(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} · Headrace</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<style>{style}</style></head><body><header><h1>Headrace</h1><nav>{way}</nav></header>"
        "<main><h2>{title}</h2><p>{text}</p></main></body></html>"
    ).format(
        title=title,
        style=Markup(STYLE),
        way=Markup('<a href="{}">{}</a>').format("/console", "Console"),
        text=text,
    )
