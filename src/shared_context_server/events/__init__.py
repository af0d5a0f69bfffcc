"""Events: tell subscribers in all processes that something was committed."""
