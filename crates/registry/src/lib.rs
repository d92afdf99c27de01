//! OCI registries: modules pushed and pulled as artifacts, by digest, into a cache.
