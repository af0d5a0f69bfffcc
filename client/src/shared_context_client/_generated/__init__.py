"""What follows from the server's registry; written by `make docs`."""
