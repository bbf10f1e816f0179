"""The operators' API: one module a resource."""
