"""The steps of a request at a route."""
