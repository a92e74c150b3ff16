"""Numbers on matrices and streams, each with the null that it must be read beside."""
