"""Who may do what: signatures, tokens, secrets by reference, and the rules between them."""
