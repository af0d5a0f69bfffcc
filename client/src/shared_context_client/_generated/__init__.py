"""Code generated from the server's registry of tools by `make docs`."""
