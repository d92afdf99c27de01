//! The life of a pod: what it asks, how it starts, its probes, its status, its end.
