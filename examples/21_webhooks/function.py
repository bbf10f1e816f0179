"""Webhooks of four senders: each message that is signed becomes one event, once."""

from __future__ import annotations

from typing import Any

from headrace import App, Event, PerClient, Request, Webhook
from headrace.webhooks import GitHub, Slack, StandardWebhooks, Stripe

app = App("hooks", owner="platform")
news = app.stream("news")


@app.function(
    Webhook("/hooks/github", GitHub("GITHUB_HOOK"), headers=("x-github-event",)), output=news
)
def from_github(request: Request) -> dict[str, Any]:
    """What happened in a repository."""
    return {"from": "github", "what": request.headers.get("x-github-event")}


@app.function(Webhook("/hooks/stripe", Stripe("STRIPE_HOOK")), output=news)
def from_stripe(event: Event[Any]) -> dict[str, Any]:
    """What was paid."""
    return {"from": "stripe", "what": event.value["type"]}


@app.function(Webhook("/hooks/slack", Slack("SLACK_HOOK")), output=news)
def from_slack(event: Event[Any]) -> dict[str, Any]:
    """What was said."""
    return {"from": "slack", "what": event.value["event"]["type"]}


@app.function(
    Webhook(
        "/hooks/{tenant}/in",
        StandardWebhooks(("TENANT_HOOK_NEW", "TENANT_HOOK")),
        key="path.tenant",
        rate=PerClient(50, per="1s"),
    ),
    output=news,
)
def from_tenants(event: Event[Any]) -> dict[str, Any]:
    """What customers' systems tell; two secrets count while one replaces the other."""
    return {"from": event.key, "what": event.value["type"]}
