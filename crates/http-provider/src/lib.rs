//! Capability provider wascc:http_server.
