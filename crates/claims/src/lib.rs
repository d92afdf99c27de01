//! Keys, signed claims and the only way to a verified module.
