"""Features of the frozen backbone: encoding, banks in memory, the cache on disk."""
