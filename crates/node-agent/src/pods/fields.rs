//! Every field of a PodSpec and what becomes of it here: the table that admission walks, and that
//! `docs/kubernetes.md` is compared with. A field that is not in it is refused, so that a newer
//! API cannot ask for something that is silently not done.

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Carried out, here or by the control plane.
    Honoured,
    /// Accepted, because it holds for every module or means nothing for one.
    Met,
    /// The pod waits with a reason that names the field, unless the field is empty or `false`.
    Refused,
}

/// Which values a field may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Any.
    Any,
    /// One of these.
    Only(&'static [&'static str]),
    /// Any number but 0.
    NotZero,
}

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecField {
    /// Path below `spec`; `[]` is any element of a list, `*Probe` each of livenessProbe,
    /// readinessProbe and startupProbe.
    pub path: &'static str,
    /// What becomes of it.
    pub class: Class,
    /// Which values are accepted.
    pub values: Values,
    /// How, or why not.
    pub note: &'static str,
}

const fn row(path: &'static str, class: Class, values: Values, note: &'static str) -> SpecField {
    SpecField { path, class, values, note }
}
const fn done(path: &'static str, note: &'static str) -> SpecField {
    row(path, Class::Honoured, Values::Any, note)
}
const fn met(path: &'static str, note: &'static str) -> SpecField {
    row(path, Class::Met, Values::Any, note)
}
const fn only(
    path: &'static str,
    values: &'static [&'static str],
    note: &'static str,
) -> SpecField {
    row(path, Class::Met, Values::Only(values), note)
}
const fn no(path: &'static str, why: &'static str) -> SpecField {
    row(path, Class::Refused, Values::Any, why)
}

const SCHEDULER: &str = "by the scheduler";
const ONE_UID: &str = "the process has a uid of its own, and the guest knows no users";
const NO_TYPE: &str = "volumes are ConfigMaps and Secrets";
const OLD_TYPE: &str =
    "volumes are ConfigMaps and Secrets; this type is gone from Kubernetes or goes through CSI";
const NO_HOST: &str = "a probe reaches the pod's own address";
const HTTP_ONLY: &str = "actors speak HTTP";
const NO_TERMINAL: &str = "a module has no terminal and no standard input";
const NOT_LINUX: &str = "a property of Linux or Windows containers";

/// Every field of a PodSpec of Kubernetes 1.33 to 1.37.
pub const POD_SPEC_FIELDS: &[SpecField] = &[
    done("activeDeadlineSeconds", "the pod fails with DeadlineExceeded"),
    done("affinity", SCHEDULER),
    met("automountServiceAccountToken", "a module gets no token either way"),
    done("containers", "exactly one"),
    done("containers[].args", "arguments of a WASI command, $(VAR) expanded; an actor takes none"),
    no("containers[].command", "the module is the program; its arguments go into args"),
    done("containers[].env", "an actor's values, or a command's environment"),
    done("containers[].env[].name", ""),
    done("containers[].env[].value", "$(VAR) expanded"),
    done("containers[].env[].valueFrom", ""),
    done("containers[].env[].valueFrom.configMapKeyRef", "optional included"),
    done("containers[].env[].valueFrom.secretKeyRef", "optional included"),
    done("containers[].env[].valueFrom.fieldRef", "the fields a kubelet gives"),
    done("containers[].env[].valueFrom.resourceFieldRef", "cpu, memory and ephemeral-storage"),
    no(
        "containers[].env[].valueFrom.fileKeyRef",
        "there is no volume that another container could write",
    ),
    done("containers[].envFrom", "ConfigMaps and Secrets, with prefix and optional"),
    done(
        "containers[].image",
        "an OCI artifact with one signed module; a change restarts the container",
    ),
    done("containers[].imagePullPolicy", ""),
    done("containers[].lifecycle", ""),
    no("containers[].lifecycle.postStart", "there is nothing to call before an actor answers"),
    done("containers[].lifecycle.preStop", ""),
    no("containers[].lifecycle.preStop.exec", "a module runs no other programs"),
    done("containers[].lifecycle.preStop.httpGet", ""),
    no("containers[].lifecycle.preStop.httpGet.host", NO_HOST),
    done("containers[].lifecycle.preStop.httpGet.httpHeaders", ""),
    done("containers[].lifecycle.preStop.httpGet.path", ""),
    done("containers[].lifecycle.preStop.httpGet.port", "number or name"),
    only("containers[].lifecycle.preStop.httpGet.scheme", &["HTTP"], HTTP_ONLY),
    done("containers[].lifecycle.preStop.sleep", ""),
    no("containers[].lifecycle.preStop.tcpSocket", "Kubernetes itself does nothing with it"),
    only("containers[].lifecycle.stopSignal", &["SIGTERM"], "the process ends on SIGTERM"),
    done("containers[].*Probe", "run for real; startup gates the others"),
    no("containers[].*Probe.exec", "a module runs no other programs"),
    no("containers[].*Probe.grpc", HTTP_ONLY),
    done("containers[].*Probe.failureThreshold", ""),
    done("containers[].*Probe.httpGet", "200 to 399 is a success; a redirect is not followed"),
    no("containers[].*Probe.httpGet.host", NO_HOST),
    done("containers[].*Probe.httpGet.httpHeaders", ""),
    done("containers[].*Probe.httpGet.path", ""),
    done("containers[].*Probe.httpGet.port", "number or name"),
    only("containers[].*Probe.httpGet.scheme", &["HTTP"], HTTP_ONLY),
    done("containers[].*Probe.initialDelaySeconds", ""),
    done("containers[].*Probe.periodSeconds", ""),
    done("containers[].*Probe.successThreshold", ""),
    done("containers[].*Probe.tcpSocket", ""),
    no("containers[].*Probe.tcpSocket.host", NO_HOST),
    done("containers[].*Probe.tcpSocket.port", "number or name"),
    done("containers[].*Probe.terminationGracePeriodSeconds", ""),
    done("containers[].*Probe.timeoutSeconds", ""),
    done("containers[].name", ""),
    done("containers[].ports", ""),
    done(
        "containers[].ports[].containerPort",
        "the first is the actor's port unless env sets PORT",
    ),
    done("containers[].ports[].hostIP", ""),
    done("containers[].ports[].hostPort", "for the actor's port; the node listens there too"),
    done("containers[].ports[].name", ""),
    only("containers[].ports[].protocol", &["TCP"], HTTP_ONLY),
    met("containers[].resizePolicy", "a change of resources always restarts the container"),
    done("containers[].resources", "a change restarts the container"),
    no("containers[].resources.claims", "a module reaches no devices"),
    done("containers[].resources.limits", ""),
    done("containers[].resources.limits.cpu", "enforced"),
    met(
        "containers[].resources.limits.ephemeral-storage",
        "a module writes no files; its logs are bounded",
    ),
    done("containers[].resources.limits.memory", "enforced: OOMKilled"),
    done("containers[].resources.requests", ""),
    done("containers[].resources.requests.cpu", "by the scheduler and at admission"),
    met(
        "containers[].resources.requests.ephemeral-storage",
        "a module writes no files; its logs are bounded",
    ),
    done("containers[].resources.requests.memory", "by the scheduler and at admission"),
    no("containers[].restartPolicy", "the pod's restartPolicy is the only one"),
    no("containers[].restartPolicyRules", "the pod's restartPolicy is the only one"),
    met("containers[].securityContext", "what the sandbox keeps anyway"),
    only(
        "containers[].securityContext.allowPrivilegeEscalation",
        &["false"],
        "no_new_privs is set",
    ),
    met("containers[].securityContext.appArmorProfile", ""),
    only(
        "containers[].securityContext.appArmorProfile.type",
        &["RuntimeDefault"],
        "the sandbox is the profile",
    ),
    met("containers[].securityContext.capabilities", ""),
    no("containers[].securityContext.capabilities.add", "a module's process has no capabilities"),
    met("containers[].securityContext.capabilities.drop", "a module's process has none"),
    no("containers[].securityContext.privileged", "a module's process has no privileges"),
    only(
        "containers[].securityContext.procMount",
        &["Default"],
        "there is no /proc in the sandbox",
    ),
    met(
        "containers[].securityContext.readOnlyRootFilesystem",
        "there is no root filesystem; volumes are read-only",
    ),
    met("containers[].securityContext.runAsGroup", ONE_UID),
    met("containers[].securityContext.runAsNonRoot", ONE_UID),
    row("containers[].securityContext.runAsUser", Class::Met, Values::NotZero, ONE_UID),
    no("containers[].securityContext.seLinuxOptions", NOT_LINUX),
    met("containers[].securityContext.seccompProfile", ""),
    no(
        "containers[].securityContext.seccompProfile.localhostProfile",
        "the node's own filter applies",
    ),
    only(
        "containers[].securityContext.seccompProfile.type",
        &["RuntimeDefault"],
        "the node's own filter applies",
    ),
    no("containers[].securityContext.windowsOptions", NOT_LINUX),
    no("containers[].stdin", NO_TERMINAL),
    no("containers[].stdinOnce", NO_TERMINAL),
    met(
        "containers[].terminationMessagePath",
        "there is no such file; the message is the last line of the log",
    ),
    met("containers[].terminationMessagePolicy", "as FallbackToLogsOnError"),
    no("containers[].tty", NO_TERMINAL),
    no("containers[].volumeDevices", "a module reaches no devices"),
    done(
        "containers[].volumeMounts",
        "folders of a WASI command, read-only; an actor has no files",
    ),
    done("containers[].volumeMounts[].mountPath", ""),
    only("containers[].volumeMounts[].mountPropagation", &["None"], "nothing is mounted inside"),
    done("containers[].volumeMounts[].name", ""),
    met("containers[].volumeMounts[].readOnly", "always read-only"),
    met("containers[].volumeMounts[].recursiveReadOnly", "always read-only"),
    no("containers[].volumeMounts[].subPath", "a folder is mounted as a whole"),
    no("containers[].volumeMounts[].subPathExpr", "a folder is mounted as a whole"),
    no("containers[].workingDir", "a module has no working directory"),
    met("dnsConfig", "a module looks up no names"),
    met("dnsPolicy", "a module looks up no names"),
    met("enableServiceLinks", "no variables of Services are set"),
    no("ephemeralContainers", "a pod here is one module"),
    met("hostAliases", "a module looks up no names"),
    no("hostIPC", "a module shares nothing with the node"),
    no("hostNetwork", "a module opens no sockets; hostPort is honoured"),
    no("hostPID", "a module shares nothing with the node"),
    met("hostUsers", ONE_UID),
    done("hostname", "in DNS by the control plane; HOSTNAME of a WASI command"),
    no("hostnameOverride", "a module has no host name of its own"),
    done("imagePullSecrets", "dockerconfigjson and dockercfg"),
    no("initContainers", "a pod here is one module"),
    done("nodeName", SCHEDULER),
    done("nodeSelector", SCHEDULER),
    no(
        "os",
        "a module runs on no operating system: select the node by its labels or the RuntimeClass",
    ),
    done("overhead", "by the scheduler and at admission"),
    done("preemptionPolicy", SCHEDULER),
    done("priority", "by the scheduler, and in the order of eviction"),
    done("priorityClassName", SCHEDULER),
    done("readinessGates", ""),
    no("resourceClaims", "a module reaches no devices"),
    no("resources", "set them on the container"),
    done("restartPolicy", ""),
    done(
        "runtimeClassName",
        "`graphlet` selects these nodes; the API server and the scheduler carry it out",
    ),
    done("schedulerName", SCHEDULER),
    done("schedulingGates", SCHEDULER),
    done("schedulingGroup", SCHEDULER),
    met("securityContext", "what the sandbox keeps anyway"),
    met("securityContext.appArmorProfile", ""),
    only("securityContext.appArmorProfile.type", &["RuntimeDefault"], "the sandbox is the profile"),
    met("securityContext.fsGroup", ONE_UID),
    met("securityContext.fsGroupChangePolicy", ONE_UID),
    met("securityContext.runAsGroup", ONE_UID),
    met("securityContext.runAsNonRoot", ONE_UID),
    row("securityContext.runAsUser", Class::Met, Values::NotZero, ONE_UID),
    met("securityContext.seLinuxChangePolicy", "there are no SELinux labels to change"),
    no("securityContext.seLinuxOptions", NOT_LINUX),
    met("securityContext.seccompProfile", ""),
    no("securityContext.seccompProfile.localhostProfile", "the node's own filter applies"),
    only(
        "securityContext.seccompProfile.type",
        &["RuntimeDefault"],
        "the node's own filter applies",
    ),
    met("securityContext.supplementalGroups", ONE_UID),
    met("securityContext.supplementalGroupsPolicy", ONE_UID),
    no("securityContext.sysctls", NOT_LINUX),
    no("securityContext.windowsOptions", NOT_LINUX),
    done("serviceAccount", "its pull secrets, by admission"),
    done("serviceAccountName", "its pull secrets, by admission"),
    met("setHostnameAsFQDN", "a module has no host name of its own"),
    no("shareProcessNamespace", "a pod here is one module"),
    done("subdomain", "in DNS by the control plane"),
    done("terminationGracePeriodSeconds", ""),
    done("tolerations", "by the scheduler and the taint manager"),
    done("topologySpreadConstraints", SCHEDULER),
    done("volumes", "for WASI commands, written when the container starts"),
    no("volumes[].awsElasticBlockStore", OLD_TYPE),
    no("volumes[].azureDisk", OLD_TYPE),
    no("volumes[].azureFile", OLD_TYPE),
    no("volumes[].cephfs", OLD_TYPE),
    no("volumes[].cinder", OLD_TYPE),
    done("volumes[].configMap", ""),
    met("volumes[].configMap.defaultMode", "files are read-only"),
    done("volumes[].configMap.items", ""),
    done("volumes[].configMap.name", ""),
    done("volumes[].configMap.optional", ""),
    no("volumes[].csi", NO_TYPE),
    no("volumes[].downwardAPI", NO_TYPE),
    no("volumes[].emptyDir", "a module has nowhere to write"),
    no("volumes[].ephemeral", NO_TYPE),
    no("volumes[].fc", OLD_TYPE),
    no("volumes[].flexVolume", OLD_TYPE),
    no("volumes[].flocker", OLD_TYPE),
    no("volumes[].gcePersistentDisk", OLD_TYPE),
    no("volumes[].gitRepo", OLD_TYPE),
    no("volumes[].glusterfs", OLD_TYPE),
    no("volumes[].hostPath", "a module sees nothing of the node's files"),
    no("volumes[].image", NO_TYPE),
    no("volumes[].iscsi", NO_TYPE),
    done("volumes[].name", ""),
    no("volumes[].nfs", NO_TYPE),
    no("volumes[].persistentVolumeClaim", NO_TYPE),
    no("volumes[].photonPersistentDisk", OLD_TYPE),
    no("volumes[].portworxVolume", OLD_TYPE),
    met(
        "volumes[].projected",
        "the kube-api-access volume that admission adds, which is not mounted; others are refused",
    ),
    no("volumes[].quobyte", OLD_TYPE),
    no("volumes[].rbd", OLD_TYPE),
    no("volumes[].scaleIO", OLD_TYPE),
    done("volumes[].secret", ""),
    met("volumes[].secret.defaultMode", "files are read-only"),
    done("volumes[].secret.items", ""),
    done("volumes[].secret.optional", ""),
    done("volumes[].secret.secretName", ""),
    no("volumes[].storageos", OLD_TYPE),
    no("volumes[].vsphereVolume", OLD_TYPE),
    done("workloadRef", SCHEDULER),
];

/// The row of a path, where list indices are `[]` already.
pub(crate) fn field(path: &str) -> Option<&'static SpecField> {
    let path = any_probe(path);
    POD_SPEC_FIELDS.iter().find(|field| field.path == path)
}

/// Whether there are rows for what is inside `path`.
pub(crate) fn has_inner(path: &str) -> bool {
    let path = any_probe(path);
    POD_SPEC_FIELDS.iter().any(|field| {
        field.path.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with(['.', '[']))
    })
}

/// The three kinds of probes share their rows.
fn any_probe(path: &str) -> String {
    let mut path = path.to_owned();
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(at) = path.find(name) {
            path.replace_range(at..at + name.len(), "*Probe");
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_stands_once_and_in_a_parent_that_is_open() {
        for (index, field) in POD_SPEC_FIELDS.iter().enumerate() {
            let twice = POD_SPEC_FIELDS[index + 1..].iter().any(|other| other.path == field.path);
            assert!(!twice, "{} stands twice", field.path);
            if let Some((parent, _)) = field.path.rsplit_once('.') {
                let parent = parent.trim_end_matches("[]");
                let row = super::field(parent);
                assert!(
                    row.is_some_and(|row| row.class != Class::Refused),
                    "{} is inside {parent}, which is refused or missing",
                    field.path
                );
            }
        }
    }

    #[test]
    fn every_refusal_says_why() {
        for field in POD_SPEC_FIELDS.iter().filter(|field| field.class == Class::Refused) {
            assert!(!field.note.is_empty(), "{}", field.path);
        }
    }
}
