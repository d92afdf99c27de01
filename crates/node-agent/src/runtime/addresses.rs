//! Which address and which user id each pod has: the same ones as long as the pod exists, whatever
//! happens to the agent.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr},
    ops::Range,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{
    Cidr, PodAddress, RuntimeError,
    run_dir::{read_json, write_json},
};

/// How long an address is left alone after its pod is gone: proxies on other nodes still send
/// there for a while, and must not meet another pod.
pub(crate) const REST: Duration = Duration::from_secs(60);

/// Where addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// It is not known yet.
    Unknown,
    /// Each pod gets its own.
    Pods(Cidr),
    /// All share the node's.
    Node(IpAddr),
}

/// The book of addresses and user ids, which is written to disk at each change.
#[derive(Debug)]
pub(crate) struct Addresses {
    path: PathBuf,
    uids: Range<u32>,
    network: Network,
    book: Book,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Book {
    pods: BTreeMap<String, Entry>,
    /// Addresses whose pods are gone, and since when.
    resting: VecDeque<(Ipv4Addr, SystemTime)>,
    /// Where to look first: addresses come into use again as late as possible.
    next_index: u32,
    next_uid: u32,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Entry {
    address: Option<IpAddr>,
    shared_with_node: bool,
    uid: Option<u32>,
}

impl Addresses {
    /// Reads the book, if there is one.
    ///
    /// # Errors
    /// [`RuntimeError::State`] when it is there and cannot be read: to begin a new one would give
    /// addresses of running pods to others.
    pub(crate) fn open(path: PathBuf, uids: Range<u32>) -> Result<Self, RuntimeError> {
        let book = match read_json(&path) {
            Ok(book) => book,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Book::default(),
            Err(source) => return Err(RuntimeError::State { action: "read", path, source }),
        };
        Ok(Self { path, uids, network: Network::Unknown, book })
    }

    pub(crate) fn set_network(&mut self, network: Network) {
        self.network = network;
    }

    /// Pods that have something here.
    pub(crate) fn pods(&self) -> Vec<String> {
        self.book.pods.keys().cloned().collect()
    }

    /// The pod's address; the first time, a new one.
    pub(crate) fn address(
        &mut self,
        pod: &str,
        now: SystemTime,
    ) -> Result<PodAddress, RuntimeError> {
        if let Some(Entry { address: Some(ip), shared_with_node, .. }) = self.book.pods.get(pod) {
            return Ok(PodAddress { ip: *ip, shared_with_node: *shared_with_node });
        }
        let address = match self.network {
            Network::Unknown => return Err(RuntimeError::NoPodNetwork),
            Network::Node(ip) if ip.is_loopback() => return Err(RuntimeError::Loopback(ip)),
            Network::Node(ip) => PodAddress { ip, shared_with_node: true },
            Network::Pods(cidr) => {
                let ip = self.free_address(cidr, now)?;
                PodAddress { ip: ip.into(), shared_with_node: false }
            }
        };
        self.change(|book| {
            let entry = book.pods.entry(pod.to_owned()).or_default();
            entry.address = Some(address.ip);
            entry.shared_with_node = address.shared_with_node;
        })?;
        Ok(address)
    }

    fn free_address(&mut self, cidr: Cidr, now: SystemTime) -> Result<Ipv4Addr, RuntimeError> {
        // A clock that was set back must not keep addresses for hours: they rest no longer then.
        let rests = |since: SystemTime| now.duration_since(since).is_ok_and(|since| since < REST);
        self.book.resting.retain(|(_, since)| rests(*since));
        let taken: BTreeSet<IpAddr> =
            self.book.pods.values().filter_map(|entry| entry.address).collect();
        let resting = |ip: Ipv4Addr| self.book.resting.iter().any(|(other, _)| *other == ip);
        // The first address names the range, the second is a bridge's by custom, the last is for
        // broadcasts.
        let count = cidr.size() - 3;
        let found =
            (0..count).map(|step| (self.book.next_index + step) % count).find_map(|index| {
                let ip = cidr.at(index + 2)?;
                (!taken.contains(&ip.into()) && !resting(ip)).then_some((index, ip))
            });
        let (index, ip) = found.ok_or(RuntimeError::AddressesExhausted(cidr))?;
        self.book.next_index = (index + 1) % count;
        Ok(ip)
    }

    /// The pod's user id; the first time, a new one.
    pub(crate) fn uid(&mut self, pod: &str) -> Result<u32, RuntimeError> {
        if let Some(Entry { uid: Some(uid), .. }) = self.book.pods.get(pod) {
            return Ok(*uid);
        }
        let taken: BTreeSet<u32> = self.book.pods.values().filter_map(|entry| entry.uid).collect();
        let count = self.uids.len() as u32;
        let first = self.uids.start;
        let uid = (0..count)
            .map(|step| first + (self.book.next_uid + step) % count)
            .find(|uid| !taken.contains(uid))
            .ok_or(RuntimeError::UidsExhausted)?;
        self.change(|book| {
            book.next_uid = (uid - first + 1) % count;
            book.pods.entry(pod.to_owned()).or_default().uid = Some(uid);
        })?;
        Ok(uid)
    }

    /// Takes back the pod's address.
    pub(crate) fn release_address(
        &mut self,
        pod: &str,
        now: SystemTime,
    ) -> Result<(), RuntimeError> {
        let Some(entry) = self.book.pods.get(pod) else { return Ok(()) };
        let own = !entry.shared_with_node;
        let Some(address) = entry.address else { return Ok(()) };
        self.change(|book| {
            if let Some(entry) = book.pods.get_mut(pod) {
                entry.address = None;
                entry.shared_with_node = false;
            }
            if let (true, IpAddr::V4(ip)) = (own, address) {
                book.resting.push_back((ip, now));
            }
        })
    }

    /// Takes back all that the pod had.
    pub(crate) fn forget(&mut self, pod: &str, now: SystemTime) -> Result<(), RuntimeError> {
        self.release_address(pod, now)?;
        if !self.book.pods.contains_key(pod) {
            return Ok(());
        }
        self.change(|book| {
            book.pods.remove(pod);
        })
    }

    /// Changes the book, on disk first.
    fn change(&mut self, change: impl FnOnce(&mut Book)) -> Result<(), RuntimeError> {
        let mut changed = self.book.clone();
        change(&mut changed);
        write_json(&self.path, &changed).map_err(|source| RuntimeError::State {
            action: "write",
            path: self.path.clone(),
            source,
        })?;
        self.book = changed;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &tempfile::TempDir) -> Addresses {
        let mut addresses =
            Addresses::open(folder.path().join("addresses.json"), 1000..1003).unwrap();
        addresses.set_network(Network::Pods("10.244.3.0/29".parse().unwrap()));
        addresses
    }

    fn ip(addresses: &mut Addresses, pod: &str, now: SystemTime) -> String {
        addresses.address(pod, now).unwrap().ip.to_string()
    }

    #[test]
    fn a_pod_keeps_its_address_and_user_over_a_restart() {
        let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
        let mut addresses = open(&folder);
        assert_eq!(ip(&mut addresses, "a", now), "10.244.3.2");
        assert_eq!(ip(&mut addresses, "b", now), "10.244.3.3");
        assert_eq!((addresses.uid("a").unwrap(), addresses.uid("b").unwrap()), (1000, 1001));
        let mut addresses = open(&folder);
        assert_eq!(ip(&mut addresses, "b", now), "10.244.3.3");
        assert_eq!(ip(&mut addresses, "a", now), "10.244.3.2");
        assert_eq!(addresses.uid("b").unwrap(), 1001);
        assert_eq!(addresses.pods(), ["a", "b"]);
    }

    #[test]
    fn an_address_rests_before_another_pod_gets_it() {
        let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
        let mut addresses = open(&folder);
        for pod in ["a", "b", "c", "d"] {
            ip(&mut addresses, pod, now);
        }
        addresses.forget("b", now).unwrap();
        assert_eq!(ip(&mut addresses, "e", now), "10.244.3.6");
        let error = addresses.address("f", now).unwrap_err();
        assert!(matches!(error, RuntimeError::AddressesExhausted(_)), "{error}");
        assert_eq!(ip(&mut open(&folder), "f", now + REST), "10.244.3.3");
        // Nor for ever, when the clock was wrong.
        addresses.forget("c", now + REST * 1000).unwrap();
        assert!(addresses.address("g", now).is_ok());
    }

    #[test]
    fn user_ids_end_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut addresses = open(&folder);
        for (pod, uid) in [("a", 1000), ("b", 1001), ("c", 1002)] {
            assert_eq!(addresses.uid(pod).unwrap(), uid);
        }
        assert!(matches!(addresses.uid("d"), Err(RuntimeError::UidsExhausted)));
        addresses.forget("b", SystemTime::now()).unwrap();
        assert_eq!(addresses.uid("d").unwrap(), 1001);
    }

    #[test]
    fn in_node_ip_mode_all_share_one_that_is_never_loopback() {
        let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
        let mut addresses = open(&folder);
        addresses.set_network(Network::Node([127, 0, 0, 1].into()));
        assert!(matches!(addresses.address("a", now), Err(RuntimeError::Loopback(_))));
        addresses.set_network(Network::Node([192, 168, 7, 1].into()));
        for pod in ["a", "b"] {
            let address = addresses.address(pod, now).unwrap();
            assert!(address.shared_with_node && address.ip.to_string() == "192.168.7.1");
            addresses.release_address(pod, now).unwrap();
        }
        addresses.set_network(Network::Unknown);
        assert!(matches!(addresses.address("a", now), Err(RuntimeError::NoPodNetwork)));
    }

    #[test]
    fn a_damaged_book_is_an_error_and_not_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("addresses.json"), "{").unwrap();
        let opened = Addresses::open(folder.path().join("addresses.json"), 1..2);
        assert!(matches!(opened, Err(RuntimeError::State { .. })));
    }
}
