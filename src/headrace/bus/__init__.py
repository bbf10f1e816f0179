"""The event bus: rules that route events to functions, streams and HTTP targets; replays."""
