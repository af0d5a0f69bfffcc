"""Where sensor values come from. One file a kind; `registry` knows them all."""
