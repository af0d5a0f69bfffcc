"""Where the daemon's time comes from: the system clock, the kernel's word on it, or NTP servers."""
