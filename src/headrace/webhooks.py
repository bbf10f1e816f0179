"""How senders of webhooks sign what they send: the schemes of `headrace.Webhook(signature=...)`."""

from headrace.model.webhook_signature import GitHub, Hmac, Secret, Slack, StandardWebhooks, Stripe

__all__ = [
    "GitHub",
    "Hmac",
    "Secret",
    "Slack",
    "StandardWebhooks",
    "Stripe",
]
