//! Actors, their instances, and the links between actors and capability providers.

pub mod provider;
