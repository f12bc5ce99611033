"""`select()` where frameworks expect it; each module needs the framework's own package."""
