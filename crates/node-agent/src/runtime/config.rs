//! Settings of the runtime, its errors, and the range of addresses that pods get.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// How pods are run on this node.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Where everything is kept; made (root-owned, mode 0700) if need be.
    pub state_dir: PathBuf,
    /// The `graphlet` command, which pods' processes run.
    pub graphlet: PathBuf,
    /// The command whose `shim` stands between agent and pod: `graphlet-node`, this program.
    pub shim: PathBuf,
    /// The node's own address, for node-IP mode.
    pub node_ip: IpAddr,
    /// Where pods' addresses come from, when it is known already.
    pub pod_cidr: Option<Cidr>,
    /// Whether pods that run already are kept; without it they are killed and reported as ended.
    pub adopt: bool,
    /// User ids for pods, one each. Ignored, with a warning, when the agent is not root: pods then
    /// run as its user.
    pub uid_range: std::ops::Range<u32>,
    /// Processes at most that compile at a time.
    pub compilers: usize,
}

impl RuntimeConfig {
    /// The usual settings.
    pub fn new(
        state_dir: impl Into<PathBuf>,
        graphlet: impl Into<PathBuf>,
        shim: impl Into<PathBuf>,
        node_ip: IpAddr,
    ) -> Self {
        Self {
            state_dir: state_dir.into(),
            graphlet: graphlet.into(),
            shim: shim.into(),
            node_ip,
            pod_cidr: None,
            adopt: true,
            uid_range: UIDS,
            compilers: 2,
        }
    }
}

/// Far above what systemd, container engines and useradd give out (524,288 to 1,879,048,191 and
/// below), and under 2^31, which some tools take for negative.
const UIDS: std::ops::Range<u32> = 2_000_000_000..2_000_065_536;

/// The runtime cannot do something that concerns no single container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// No podCIDR has come yet, and node-IP mode was not chosen.
    #[error("the node has no podCIDR yet")]
    NoPodNetwork,
    /// Every address of the range is in use, or was until a moment ago.
    #[error("no address is left in {0}")]
    AddressesExhausted(Cidr),
    /// Every user id of the range is in use.
    #[error("no user id is left for another pod")]
    UidsExhausted,
    /// A loopback address would poison the EndpointSlices of a Service.
    #[error("{0} is a loopback address: pods cannot be reached there")]
    Loopback(IpAddr),
    /// The range could not be made bindable on this machine.
    #[error("{cidr} cannot be made local to this machine (`ip route add local {cidr} dev lo`)")]
    Route {
        /// The range.
        cidr: Cidr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is kept on disk cannot be read or written.
    #[error("cannot {action} `{}`", path.display())]
    State {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// A range of IPv4 addresses, such as `10.244.3.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cidr {
    network: Ipv4Addr,
    prefix: u8,
}

/// A text is no range of pod addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no range of IPv4 addresses for pods, such as 10.244.3.0/24: {reason}")]
pub struct CidrError {
    text: String,
    reason: &'static str,
}

impl Cidr {
    /// Its first address, which is not given out.
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// How many bits its addresses share.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// How many addresses it holds, the first and last included.
    pub fn size(self) -> u32 {
        1 << (32 - u32::from(self.prefix))
    }

    /// The address at `index`, counted from the first.
    pub fn at(self, index: u32) -> Option<Ipv4Addr> {
        (index < self.size()).then(|| Ipv4Addr::from(u32::from(self.network) + index))
    }

    /// Whether it holds `address`.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) ^ u32::from(self.network) < self.size()
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let wrong = |reason| CidrError { text: text.to_owned(), reason };
        let (network, prefix) =
            text.split_once('/').ok_or_else(|| wrong("there is no prefix length"))?;
        let network: Ipv4Addr = network.parse().map_err(|_| wrong("this is no IPv4 address"))?;
        // Nodes get /24 as a rule; /8 is the largest private range, and /29 leaves five pods.
        let prefix = prefix
            .parse()
            .ok()
            .filter(|prefix| (8..=29).contains(prefix))
            .ok_or_else(|| wrong("the prefix length is not from 8 to 29"))?;
        let cidr = Self { network, prefix };
        if u32::from(network) & (cidr.size() - 1) != 0 {
            return Err(wrong("there are bits behind the prefix"));
        }
        if network.is_loopback() || network.is_multicast() || network.is_unspecified() {
            return Err(wrong("nothing can be reached at such addresses"));
        }
        Ok(cidr)
    }
}

impl TryFrom<String> for Cidr {
    type Error = CidrError;

    fn try_from(text: String) -> Result<Self, CidrError> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_and_its_addresses_counted() {
        let cidr: Cidr = "10.244.3.0/24".parse().unwrap();
        assert_eq!((cidr.to_string().as_str(), cidr.size()), ("10.244.3.0/24", 256));
        assert_eq!(cidr.at(7), Some(Ipv4Addr::new(10, 244, 3, 7)));
        assert_eq!(cidr.at(256), None);
        assert!(cidr.contains(Ipv4Addr::new(10, 244, 3, 255)));
        assert!(!cidr.contains(Ipv4Addr::new(10, 244, 4, 0)));
        assert_eq!(serde_json::to_string(&cidr).unwrap(), r#""10.244.3.0/24""#);
    }

    #[test]
    fn what_is_no_range_for_pods_is_refused() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/7",
            "10.0.0.0/30",
            "10.0.0.1/24",
            "127.0.0.0/24",
            "224.0.0.0/24",
            "fd00::/64",
            "x/24",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
