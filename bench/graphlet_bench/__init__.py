"""graphlet beside its peers, measured on the machine at hand. `scripts/bench --help`."""
