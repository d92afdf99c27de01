//! The kubelet's port: logs, pods, statistics, metrics, each request authenticated and authorised.
