//! The node's certificates: TLS bootstrap, rotation, and the client that carries them.
