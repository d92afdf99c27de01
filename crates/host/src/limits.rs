//! Every limit on what an actor may take, with its reason. Those of HTTP stand with the HTTP
//! provider.

use std::time::Duration;

/// Instances per actor unless asked otherwise: one core computes one picture at a time.
pub const INSTANCES: usize = 1;

/// Linear memory of one instance, bytes: three times what ResNet50 takes, weights and activations
/// together.
pub const MEMORY_BYTES: usize = 512 << 20;

/// Elements of a guest's function table: a hundred times what our modules have.
pub const TABLE_ELEMENTS: usize = 1 << 16;

/// Longest time from the queue to the answer: a person has given up by then, and the slowest
/// model we know (ResNet50 without SIMD) answers in a quarter of it.
pub const CALL_TIME: Duration = Duration::from_secs(10);

/// Longest time an instance may take to load its model: a hundred times what 100 MB take.
pub const START_TIME: Duration = Duration::from_secs(60);

/// Requests that wait for an instance: at 20 ms a picture, the last one waits 1.3 s.
pub const QUEUE_DEPTH: usize = 64;

/// A message to a guest, bytes: the largest HTTP body (16 MiB) and [`FRAMING_BYTES`].
pub const REQUEST_BYTES: usize = (16 << 20) + FRAMING_BYTES;

/// What a message holds besides the body, bytes: path, query, header (16 KiB, each of which
/// MessagePack may double at worst) and room to spare.
pub const FRAMING_BYTES: usize = 256 << 10;

/// An answer of a guest, bytes: a list of labels or the page is a hundredth of it, the scores of
/// a hundred pictures as JSON a fourth.
pub const RESPONSE_BYTES: usize = 4 << 20;

/// Payload of one host call, bytes: host calls carry log lines and phase names.
pub const HOST_CALL_BYTES: usize = 256 << 10;

/// A binding's, capability's or operation's name in a host call, bytes.
pub const NAME_BYTES: usize = 256;

/// The text of a guest's error, bytes; the rest is cut.
pub const ERROR_BYTES: usize = 4 << 10;

/// One line a guest logs, bytes; the rest is cut.
pub const LOG_LINE_BYTES: usize = 4 << 10;

/// Lines a guest may log during one call; what follows is dropped and counted.
pub const LOG_LINES: u32 = 64;

/// Phases a guest may mark during one call; four are in use.
pub const PHASES: usize = 16;

/// Phases a guest may mark while it is profiled: two for each node of a graph four times as deep
/// as any we know.
pub const PROFILE_PHASES: usize = 8192;

/// How often the claims of running actors are looked at again.
pub const RECHECK_INTERVAL: Duration = Duration::from_secs(10);

/// First pause before an instance that failed to start is tried again; doubles up to
/// [`MAX_RESTART_PAUSE`], so that a broken module does not keep a core busy.
pub const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause before an instance is tried again.
pub const MAX_RESTART_PAUSE: Duration = Duration::from_secs(10);

/// A host manifest, bytes: thousands of links.
pub const MANIFEST_BYTES: u64 = 1 << 20;
