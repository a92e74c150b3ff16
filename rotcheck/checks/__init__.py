"""The built-in checks: one invariant per file, named for it. Found by `rotcheck.registry`."""
