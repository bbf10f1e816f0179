"""Authentication and authorization: signatures, tokens, secrets by reference, and the rules between them."""
