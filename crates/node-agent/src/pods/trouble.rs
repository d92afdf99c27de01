//! Why a container does not run yet: what the status shows, what the event says, and when it is
//! worth trying again.

use std::time::Duration;

use super::{
    env::SettingError,
    seams::{Cause, ImageError},
};
use crate::runtime::StartError;

/// How often settings are looked for again.
const SETTINGS_RETRY: Duration = Duration::from_secs(10);
/// How often an address is asked for again.
const ADDRESS_RETRY: Duration = Duration::from_secs(5);

/// Why a container does not run yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// The waiting reason.
    pub reason: &'static str,
    /// What is wrong.
    pub message: String,
    /// Reason of the event.
    pub event: &'static str,
    /// Whether the event is sent again at each try.
    pub each_time: bool,
    /// When to try again.
    pub retry: Retry,
    /// What is shown while waiting, when that is something else.
    pub settled: Option<(&'static str, String)>,
}

/// When to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// 10 s, doubling to 300 s.
    BackOff,
    /// Always after so long.
    After(Duration),
    /// Only when the pod changes.
    Never,
}

impl Trouble {
    /// A setting that cannot be had, or makes no sense.
    pub(crate) fn setting(error: &SettingError) -> Self {
        Trouble {
            reason: "CreateContainerConfigError",
            message: error.to_string(),
            event: "Failed",
            each_time: false,
            retry: Retry::After(SETTINGS_RETRY),
            settled: None,
        }
    }

    /// A volume that cannot be filled.
    pub(crate) fn mount(volume: &str, message: &str) -> Self {
        Trouble {
            reason: "CreateContainerConfigError",
            message: format!("MountVolume.SetUp failed for volume {volume:?} : {message}"),
            event: "FailedMount",
            each_time: false,
            retry: Retry::After(SETTINGS_RETRY),
            settled: None,
        }
    }

    /// A module that cannot be had, or may not run.
    pub(crate) fn image(reference: &str, error: &ImageError) -> Self {
        let plain = |reason, event, message, retry| Trouble {
            reason,
            message,
            event,
            each_time: false,
            retry,
            settled: None,
        };
        match error {
            ImageError::InvalidName(_) => {
                let message = format!("Failed to read image name {reference:?}: {error}");
                plain("InvalidImageName", "InspectFailed", message, Retry::Never)
            }
            ImageError::NeverPull => {
                let message = format!(
                    "Container image {reference:?} is not present with pull policy of Never"
                );
                plain("ErrImageNeverPull", "ErrImageNeverPull", message, Retry::BackOff)
            }
            ImageError::Untrusted(why) => {
                let message = format!("module {reference:?} is refused: {why}");
                plain(
                    "SignatureValidationFailed",
                    "SignatureValidationFailed",
                    message,
                    Retry::BackOff,
                )
            }
            ImageError::Unusable(why) => {
                let message = format!("module {reference:?} cannot run: {why}");
                plain("CreateContainerError", "Failed", message, Retry::BackOff)
            }
            ImageError::Pull(why) => {
                let message = format!("Failed to pull image {reference:?}: {why}");
                let back_off = format!("Back-off pulling image {reference:?}: {why}");
                Trouble {
                    each_time: true,
                    settled: Some(("ImagePullBackOff", back_off)),
                    ..plain("ErrImagePull", "Failed", message, Retry::BackOff)
                }
            }
        }
    }

    /// A start that failed.
    pub(crate) fn start(error: &StartError) -> Self {
        let mut message = error.to_string();
        if let Some(source) = std::error::Error::source(error) {
            message = format!("{message}: {source}");
        }
        let conflict = matches!(
            error,
            StartError::AddressTaken { .. } | StartError::AddressUnavailable { .. }
        );
        Trouble {
            reason: "CreateContainerError",
            message,
            event: "Failed",
            each_time: false,
            // An address is free again as soon as whoever holds it ends.
            retry: if conflict { Retry::After(SETTINGS_RETRY) } else { Retry::BackOff },
            settled: None,
        }
    }

    /// No address for the pod.
    pub(crate) fn address(error: &Cause) -> Self {
        Trouble {
            reason: "ContainerCreating",
            message: format!("no address for the pod: {error}"),
            event: "FailedCreatePodSandBox",
            each_time: false,
            retry: Retry::After(ADDRESS_RETRY),
            settled: None,
        }
    }
}
