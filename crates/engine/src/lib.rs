//! wasmtime's configuration, compiled-code cache, limits and deadline.
