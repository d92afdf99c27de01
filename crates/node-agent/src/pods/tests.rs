//! Lives of pods from end to end, in a faked world and virtual time.

mod ends;
mod restarts;
mod starts;
mod takeovers;
