"""What `scs doctor` looks at. A check changes nothing, and works with and without a running server."""
