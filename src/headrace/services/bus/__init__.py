"""The event bus: rules, what they make of an event, and where it goes."""
