//! Quantities, requests and limits, and the class of service that follows from them.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

/// A quantity in thousandths of its unit: `200m` is 200, `1` is 1000, `64Mi` is 64 * 2^20 * 1000.
/// Rounded up, as Kubernetes does. `None` when it is no quantity.
pub(crate) fn millis(quantity: &str) -> Option<i128> {
    let text = quantity.trim();
    let (negative, text) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // More digits than this are beyond any machine, and the sums below stay far from overflow.
    if (whole.is_empty() && fraction.is_empty())
        || whole.len() + fraction.len() > 21
        || fraction.contains('.')
    {
        return None;
    }
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let (numerator, denominator): (i128, i128) = scale(suffix)?;
    let numerator = digits.checked_mul(numerator)?.checked_mul(1000)?;
    let denominator = denominator.checked_mul(10i128.checked_pow(fraction.len() as u32)?)?;
    let value = numerator.checked_add(denominator - 1)? / denominator;
    Some(if negative { -value } else { value })
}

/// What a suffix multiplies by, as a fraction.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "" => (1, 1),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs().min(30))?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    })
}

/// The requests of a pod that count when it is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Requests {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

/// `limits.NAME` or `requests.NAME` of a container, in thousandths; negative and unreadable ones
/// (which the API server refuses) count as none.
pub(crate) fn amount(list: Option<&BTreeMap<String, Quantity>>, name: &str) -> Option<u128> {
    u128::try_from(millis(&list?.get(name)?.0)?).ok()
}

/// Whole units, rounded up.
fn units(thousandths: u128) -> u64 {
    u64::try_from(thousandths.div_ceil(1000)).unwrap_or(u64::MAX)
}

/// Processor in thousandths of a core.
pub(crate) fn cpu_millis(list: Option<&BTreeMap<String, Quantity>>) -> Option<u64> {
    amount(list, "cpu").map(|millis| u64::try_from(millis).unwrap_or(u64::MAX))
}

/// Memory in bytes.
pub(crate) fn memory_bytes(list: Option<&BTreeMap<String, Quantity>>) -> Option<u64> {
    amount(list, "memory").map(units)
}

/// What a pod requests. A limit without a request is a request (the API server writes it so).
pub(crate) fn requests(spec: &PodSpec) -> Requests {
    let mut sum = Requests::default();
    for resources in spec.containers.iter().filter_map(|container| container.resources.as_ref()) {
        let (requests, limits) = (resources.requests.as_ref(), resources.limits.as_ref());
        let cpu = cpu_millis(requests).or(cpu_millis(limits)).unwrap_or(0);
        let memory = memory_bytes(requests).or(memory_bytes(limits)).unwrap_or(0);
        sum.cpu_millis = sum.cpu_millis.saturating_add(cpu);
        sum.memory_bytes = sum.memory_bytes.saturating_add(memory);
    }
    if let Some(overhead) = &spec.overhead {
        let overhead = Some(overhead);
        sum.cpu_millis = sum.cpu_millis.saturating_add(cpu_millis(overhead).unwrap_or(0));
        sum.memory_bytes = sum.memory_bytes.saturating_add(memory_bytes(overhead).unwrap_or(0));
    }
    sum
}

/// A pod's class of service. The order is the order in which pods go under pressure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum QosClass {
    /// Asks for nothing.
    BestEffort,
    /// Anything between.
    Burstable,
    /// Each container limits processor and memory and requests as much.
    Guaranteed,
}

impl QosClass {
    /// As the API spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            QosClass::BestEffort => "BestEffort",
            QosClass::Burstable => "Burstable",
            QosClass::Guaranteed => "Guaranteed",
        }
    }
}

/// The class of service, as `qos.ComputePodQOS` of Kubernetes does: only cpu and memory count, and
/// zero is as good as absent.
pub(crate) fn qos_class(spec: &PodSpec) -> QosClass {
    let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let of = |container: &Container, limits: bool, name: &str| {
        let resources: Option<&ResourceRequirements> = container.resources.as_ref();
        let list =
            resources.and_then(|r| if limits { r.limits.as_ref() } else { r.requests.as_ref() });
        amount(list, name).filter(|amount| *amount > 0)
    };
    let names = ["cpu", "memory"];
    let asks = containers().any(|container| {
        names
            .iter()
            .any(|name| of(container, true, name).is_some() || of(container, false, name).is_some())
    });
    if !asks {
        return QosClass::BestEffort;
    }
    let guaranteed = containers().all(|container| {
        names.iter().all(|name| {
            let limit = of(container, true, name);
            limit.is_some() && of(container, false, name).is_none_or(|asked| Some(asked) == limit)
        })
    });
    if guaranteed { QosClass::Guaranteed } else { QosClass::Burstable }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(containers: serde_json::Value) -> PodSpec {
        serde_json::from_value(json!({ "containers": containers })).expect("a pod spec")
    }

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, expected) in [
            ("1", Some(1000)),
            ("200m", Some(200)),
            ("0.5", Some(500)),
            (".5", Some(500)),
            ("1.0005", Some(1001)),
            ("64Mi", Some(64 * 1024 * 1024 * 1000)),
            ("1.5Gi", Some(3 * 512 * 1024 * 1024 * 1000)),
            ("1e3", Some(1_000_000)),
            ("12E", Some(12_000_000_000_000_000_000_000)),
            ("1E2", Some(100_000)),
            ("100n", Some(1)),
            ("-1", Some(-1000)),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("1KB", None),
            ("many", None),
            ("1e", None),
            ("9999999999999999999999999999E", None),
        ] {
            assert_eq!(millis(text), expected, "quantity {text:?}");
        }
    }

    #[test]
    fn the_class_of_service_follows_requests_and_limits() {
        for (resources, expected) in [
            (json!({}), QosClass::BestEffort),
            (json!({"requests": {"cpu": "0"}}), QosClass::BestEffort),
            (json!({"requests": {"cpu": "100m"}}), QosClass::Burstable),
            (json!({"limits": {"cpu": "1", "memory": "64Mi"}}), QosClass::Guaranteed),
            (
                json!({"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "1000m", "memory": "64Mi"}}),
                QosClass::Guaranteed,
            ),
            (
                json!({"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "500m", "memory": "64Mi"}}),
                QosClass::Burstable,
            ),
            (json!({"limits": {"memory": "64Mi"}}), QosClass::Burstable),
        ] {
            let pod = spec(json!([{ "name": "a", "resources": resources }]));
            assert_eq!(qos_class(&pod), expected, "{resources}");
        }
    }

    #[test]
    fn a_limit_without_a_request_counts_as_one() {
        let pod = spec(
            json!([{ "name": "a", "resources": {"limits": {"cpu": "1500m", "memory": "1k"}} }]),
        );
        assert_eq!(requests(&pod), Requests { cpu_millis: 1500, memory_bytes: 1000 });
    }
}
