//! The command line of `graphlet-node`.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use claims::IssuerKey;
use clap::{Args, Parser, Subcommand, ValueEnum};
use registry::Mirror;

use crate::runtime::Cidr;

/// Default of `--state-dir`.
pub const STATE_DIR: &str = "/var/lib/graphlet-node";
/// Default of `--config`; it need not be there.
pub const CONFIG: &str = "/etc/graphlet/node.toml";
/// Group of the tokens that `bootstrap` makes; `deploy/base` and `deploy/joining` name it too.
pub const BOOTSTRAP_GROUP: &str = "system:bootstrappers:graphlet";

/// Make this machine a node of a Kubernetes cluster, for pods that are signed WebAssembly modules
///
/// The agent gets the node a certificate (with a bootstrap token, once), registers it, keeps its
/// lease, and runs the pods that the cluster binds to it. Without a subcommand it does `run`.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
#[derive(Debug, Parser)]
#[command(
    name = "graphlet-node",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `run`.
    #[command(flatten)]
    pub run: RunOptions,
}

/// What `graphlet-node` does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node agent (what happens without a subcommand)
    Run(Box<RunOptions>),
    /// Make a kubeconfig with which one new node may join, within an hour
    Bootstrap(BootstrapOptions),
    /// The process between agent and pod; the agent starts it
    #[command(hide = true)]
    Shim,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where pods' addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// Each pod has its own out of the node's podCIDR; without one for 30 s, out of --pod-cidr,
    /// else the node's own.
    Auto,
    /// Each pod has its own out of the node's podCIDR, which is waited for.
    PodCidr,
    /// All pods have the node's own: one pod per port.
    NodeIp,
}

/// Options of `graphlet-node run`.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// Kubeconfig with a bootstrap token, for the first certificate (`graphlet node bootstrap`
    /// makes one)
    #[arg(long, value_name = "FILE")]
    pub bootstrap_kubeconfig: Option<PathBuf>,

    /// Ask for the first certificate with the ServiceAccount of the pod this runs in
    #[arg(long, conflicts_with = "bootstrap_kubeconfig")]
    pub in_cluster: bool,

    /// The node's own kubeconfig; written by the bootstrap, then used [default:
    /// STATE_DIR/kubeconfig]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Settings that are more than a word: trust, registries, thresholds; need not be there
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub config: PathBuf,

    /// Name of the node [default: HOSTNAME-wasm]
    #[arg(long, value_name = "NAME", value_parser = node_name)]
    pub node_name: Option<String>,

    /// The node's InternalIP, where the kubelet's port and host ports listen [default: the address
    /// of the route to the API server]
    #[arg(long, value_name = "ADDRESS")]
    pub node_ip: Option<IpAddr>,

    /// Folder of certificates, modules, pods and logs
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    pub state_dir: PathBuf,

    /// Port for logs and metrics; another one where a kubelet runs beside
    #[arg(long, visible_alias = "port", value_name = "PORT", default_value_t = 10250)]
    pub kubelet_port: u16,

    /// Where pods' addresses come from
    #[arg(long, value_enum, default_value_t = Network::Auto)]
    pub network: Network,

    /// Range for pods' addresses where the cluster gives nodes none, such as 10.244.7.0/24
    #[arg(long, value_name = "CIDR")]
    pub pod_cidr: Option<Cidr>,

    /// Most pods on this node
    #[arg(long, value_name = "NUMBER", default_value_t = 110, value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub max_pods: u32,

    /// Cores kept from pods, such as 0.5 or 500m
    #[arg(long, value_name = "CORES", default_value = "0", value_parser = cores)]
    pub reserved_cpu: u64,

    /// Memory kept from pods, such as 512Mi; by default what the kubelet keeps before it evicts
    #[arg(long, value_name = "BYTES", default_value = "100Mi", value_parser = bytes)]
    pub reserved_memory: u64,

    /// Labels of the node besides its own, as NAME=VALUE,NAME=VALUE
    #[arg(long, value_name = "LABELS", value_delimiter = ',', value_parser = label)]
    pub labels: Vec<(String, String)>,

    /// Run modules of this issuer (A...); may be repeated, and adds to the configuration file's
    #[arg(long, visible_alias = "trust", value_name = "ISSUER")]
    pub trusted_issuer: Vec<IssuerKey>,

    /// Ask URL first for what HOST has, such as `docker.io=http://mirror.lan:5000`; may be repeated
    #[arg(long, value_name = "HOST=URL")]
    pub registry_mirror: Vec<Mirror>,

    /// Speak plain HTTP to this registry; loopback ones need no mention; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    pub registry_plain_http: Vec<String>,

    /// Trust the certificate authorities in this PEM file for registries; may be repeated
    #[arg(long, value_name = "FILE")]
    pub registry_ca: Vec<PathBuf>,

    /// Believe client certificates of the authorities in this PEM file at the kubelet's port,
    /// besides the cluster's own
    #[arg(long, value_name = "FILE")]
    pub client_ca: Option<PathBuf>,

    /// The `graphlet` command that pods run [default: beside this one, then on PATH]
    #[arg(long, value_name = "FILE")]
    pub graphlet: Option<PathBuf>,

    /// Keep pods running when the agent ends, and take them over when it starts (the default,
    /// except in a container, which ends them)
    #[arg(long, overrides_with = "no_adopt")]
    pub adopt: bool,

    /// End the pods with the agent
    #[arg(long, overrides_with = "adopt")]
    pub no_adopt: bool,

    /// What to log: a level (error, warn, info, debug, trace), or target=level pairs
    #[arg(long, value_name = "FILTER", env = "GRAPHLET_LOG", default_value = "info")]
    pub log: String,

    /// How log lines look
    #[arg(long, value_enum, env = "GRAPHLET_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Options of `graphlet-node bootstrap`.
#[derive(Debug, Clone, Args)]
pub struct BootstrapOptions {
    /// Kubeconfig of an admin [default: where kubectl finds one]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Write the new kubeconfig here, for its owner alone to read [default: standard output]
    #[arg(long, short, visible_alias = "out", value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// URL of the API server as the node reaches it [default: as the admin does]
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,

    /// How long the token is good
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = lifetime)]
    pub ttl: Duration,

    /// Group that the token's bearer is in; a ClusterRoleBinding lets it ask for certificates
    #[arg(long, value_name = "GROUP", default_value = BOOTSTRAP_GROUP, value_parser = group)]
    pub group: String,
}

/// A label prefix that a node may give itself, of those that Kubernetes keeps for itself
/// (NodeRestriction).
const OWN_LABELS: [&str; 4] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/hostname",
];

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    let prefix = name.split_once('/').map_or("", |(prefix, _)| prefix);
    let kept = ["kubernetes.io", "k8s.io"]
        .iter()
        .any(|domain| prefix == *domain || prefix.ends_with(&format!(".{domain}")));
    let own = OWN_LABELS.contains(&name)
        || ["kubelet.kubernetes.io", "node.kubernetes.io"]
            .iter()
            .any(|domain| prefix == *domain || prefix.ends_with(&format!(".{domain}")));
    if kept && !own {
        return Err(format!("a node may not give itself the label `{name}`"));
    }
    let part = |text: &str| {
        text.len() <= 63
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
            && text.chars().next().is_none_or(|c| c.is_ascii_alphanumeric())
            && text.chars().last().is_none_or(|c| c.is_ascii_alphanumeric())
    };
    let short = name.rsplit_once('/').map_or(name, |(_, short)| short);
    if short.is_empty() || !part(short) || !part(value) {
        return Err(format!("`{text}` is no label"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Checks a node's name: a DNS subdomain, as Kubernetes wants it.
///
/// # Errors
/// A sentence that names it.
pub fn node_name(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is no node name: lower-case letters, digits, `-` and `.`"))
    }
}

fn group(text: &str) -> Result<String, String> {
    // The API server takes no other groups from tokens.
    let rest = text.strip_prefix("system:bootstrappers:").unwrap_or_default();
    if rest.is_empty() || !rest.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '-'))
    {
        return Err("a group begins with `system:bootstrappers:`".into());
    }
    Ok(text.to_owned())
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let error = || format!("`{text}` is not a duration from 1m to 24h, such as 30m or 1h");
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let number: u64 = number.parse().map_err(|_| error())?;
    let seconds = match unit {
        "s" => number,
        "m" => number.saturating_mul(60),
        "h" => number.saturating_mul(60 * 60),
        _ => return Err(error()),
    };
    // A token that is good for long is a password.
    if (60..=24 * 60 * 60).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err(error())
    }
}

fn cores(text: &str) -> Result<u64, String> {
    let error = || format!("`{text}` is no number of cores, such as 0.5 or 500m");
    if let Some(millis) = text.strip_suffix('m') {
        return millis.parse().map_err(|_| error());
    }
    let cores: f64 = text.parse().map_err(|_| error())?;
    if (0.0..=100_000.0).contains(&cores) {
        Ok((cores * 1000.0).round() as u64)
    } else {
        Err(error())
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let error = || format!("`{text}` is no size, such as 512Mi or 536870912");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| error())?;
    let unit: u64 = match unit.strip_suffix('B').unwrap_or(unit) {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err(error()),
    };
    number.checked_mul(unit).ok_or_else(error)
}

impl RunOptions {
    /// The labels; the last of two with one name counts.
    pub fn label_map(&self) -> BTreeMap<String, String> {
        self.labels.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_subcommand_it_runs_and_both_spellings_of_an_option_count() {
        let cli = Cli::try_parse_from([
            "graphlet-node",
            "--bootstrap-kubeconfig",
            "b",
            "--port",
            "10260",
            "--no-adopt",
            "--labels",
            "zone=attic,example.com/x=y",
        ])
        .expect("options");
        assert!(cli.command.is_none());
        assert_eq!(cli.run.kubelet_port, 10260);
        assert!(cli.run.no_adopt && !cli.run.adopt);
        assert_eq!(cli.run.label_map().len(), 2);
        let cli = Cli::try_parse_from(["graphlet-node", "run", "--kubelet-port", "1"]);
        assert!(
            matches!(cli.expect("options").command, Some(Command::Run(run)) if run.kubelet_port == 1)
        );
        for wrong in [
            &["graphlet-node", "--in-cluster", "--bootstrap-kubeconfig", "b"][..],
            &["graphlet-node", "--node-name", "Edge"],
            &["graphlet-node", "--pod-cidr", "127.0.0.0/24"],
            &["graphlet-node", "--trust", "nobody"],
            &["graphlet-node", "bootstrap", "--ttl", "30d"],
            &["graphlet-node", "bootstrap", "--group", "system:masters"],
        ] {
            assert!(Cli::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn labels_that_a_node_may_not_give_itself_are_refused_before_the_api_server_does() {
        for (text, good) in [
            ("zone=attic", true),
            ("example.com/rack=3", true),
            ("node.kubernetes.io/kind=edge", true),
            ("topology.kubernetes.io/zone=a", true),
            ("kubernetes.io/foo=bar", false),
            ("node-restriction.kubernetes.io/x=y", false),
            ("node-role.kubernetes.io/control-plane=", false),
            ("x", false),
            ("=y", false),
            ("x=a b", false),
        ] {
            assert_eq!(label(text).is_ok(), good, "label: {text}");
        }
    }

    #[test]
    fn sizes_cores_and_lifetimes_have_units() {
        assert_eq!(bytes("512Mi"), Ok(512 << 20));
        assert_eq!(bytes("1GiB"), Ok(1 << 30));
        assert_eq!(bytes("7"), Ok(7));
        assert!(bytes("1TB").is_err() && bytes("").is_err());
        assert_eq!(cores("500m"), Ok(500));
        assert_eq!(cores("0.5"), Ok(500));
        assert!(cores("-1").is_err() && cores("many").is_err() && cores("NaN").is_err());
        assert_eq!(lifetime("90m"), Ok(Duration::from_secs(5400)));
        for text in ["", "h", "5", "5s", "25h", "5ü"] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_node_name_is_a_dns_name() {
        for (text, good) in [
            ("edge-1", true),
            ("edge.lan", true),
            ("Edge", false),
            ("-a", false),
            ("a..b", false),
            ("", false),
        ] {
            assert_eq!(node_name(text).is_ok(), good, "{text}");
        }
    }
}
