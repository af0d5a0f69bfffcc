"""Authentication: keys, tokens, handles, and the ASGI middleware that reads them."""
