"""API that authors write functions with."""
