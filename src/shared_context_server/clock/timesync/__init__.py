"""Time sources of the daemon: the system clock, the kernel's estimate, or NTP servers."""
