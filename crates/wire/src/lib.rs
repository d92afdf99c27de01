//! The MessagePack messages between host and actor (waSCC's contract).
