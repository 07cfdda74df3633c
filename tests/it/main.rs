//! Integration tests: the real binary, real sockets on loopback.
