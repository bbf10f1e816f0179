"""The page a person looks at: drawn on the server, no script, no build step."""
