"""The far side of the pipe; light, and forked."""
