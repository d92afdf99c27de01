//! An API server for tests: pods, events, ConfigMaps, and whether it can be reached.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::locked;
use crate::{
    pods::seams::{Cluster, ClusterError, Later, PodNews, PodObject},
    runtime::PodRef,
};

/// An event as a test looks at it.
#[derive(Debug, Clone)]
pub(crate) struct SeenEvent {
    pub name: String,
    pub pod: String,
    pub reason: String,
    pub message: String,
    pub count: i32,
}

#[derive(Default)]
struct Api {
    pods: BTreeMap<String, Value>,
    watchers: Vec<mpsc::Sender<PodNews>>,
    away: bool,
    statuses: Vec<(String, Value)>,
    events: Vec<SeenEvent>,
    config_maps: HashMap<String, ConfigMap>,
    secrets: HashMap<String, Secret>,
    version: u64,
}

/// An API server.
pub(crate) struct FakeCluster(Mutex<Api>);

impl FakeCluster {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(FakeCluster(Mutex::default()))
    }

    fn object(value: &Value) -> PodObject {
        let pod: Pod = serde_json::from_value(value.clone()).expect("a pod");
        PodObject { pod, spec: value["spec"].clone() }
    }

    fn announce(api: &Api, news: &PodNews) {
        if !api.away {
            for watcher in &api.watchers {
                watcher.try_send(news.clone()).expect("room for news");
            }
        }
    }

    /// The pod has changed: a new version, of which watchers hear.
    fn announce_pod(api: &mut Api, name: &str) {
        api.version += 1;
        let pod = api.pods.get_mut(name).expect("the pod");
        pod["metadata"]["resourceVersion"] = json!(api.version.to_string());
        let object = Self::object(pod);
        Self::announce(api, &PodNews::Changed(Box::new(object)));
    }

    /// Somebody creates a pod that is bound to this node.
    pub(crate) fn create(&self, name: &str, spec: Value) {
        let mut api = locked(&self.0);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": 1 },
            "spec": spec,
            "status": { "phase": "Pending", "qosClass": "BestEffort", "conditions": [
                { "type": "PodScheduled", "status": "True", "lastTransitionTime": "2027-01-01T00:00:00Z" }
            ] }
        });
        api.pods.insert(name.into(), pod);
        Self::announce_pod(&mut api, name);
    }

    /// Somebody changes a pod.
    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut api = locked(&self.0);
        change(api.pods.get_mut(name).expect("the pod"));
        Self::announce_pod(&mut api, name);
    }

    /// `kubectl delete pod --grace-period`.
    pub(crate) fn delete_pod(&self, name: &str, grace: u64) {
        self.edit(name, |pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2027-01-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        });
    }

    /// `kubectl delete pod --force`.
    pub(crate) fn force_delete(&self, name: &str) {
        let mut api = locked(&self.0);
        api.pods.remove(name).expect("the pod");
        Self::announce(&api, &PodNews::Gone { uid: format!("uid-{name}") });
    }

    /// The server cannot be reached, or is back.
    pub(crate) fn set_away(&self, away: bool) {
        let mut api = locked(&self.0);
        api.away = away;
        let all = api.pods.values().map(Self::object).collect();
        Self::announce(&api, &PodNews::All(all));
    }

    pub(crate) fn put_config_map(&self, name: &str, data: Value) {
        let map = serde_json::from_value(json!({ "data": data })).expect("a ConfigMap");
        locked(&self.0).config_maps.insert(name.into(), map);
    }

    /// Statuses that were written, without what the patch does around them.
    pub(crate) fn statuses(&self, name: &str) -> Vec<Value> {
        let api = locked(&self.0);
        api.statuses.iter().filter(|(pod, _)| pod == name).map(|(_, s)| s.clone()).collect()
    }

    pub(crate) fn events(&self) -> Vec<SeenEvent> {
        locked(&self.0).events.clone()
    }

    /// Reasons of a pod's events in order.
    pub(crate) fn reasons(&self, pod: &str) -> Vec<String> {
        self.events().into_iter().filter(|e| e.pod == pod).map(|event| event.reason).collect()
    }

    /// An agent was killed: its watch is broken off.
    pub(crate) fn forget_watchers(&self) {
        locked(&self.0).watchers.clear();
    }

    /// The status as it stands.
    pub(crate) fn status(&self, name: &str) -> Value {
        locked(&self.0).pods.get(name).map(|pod| pod["status"].clone()).unwrap_or_default()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        locked(&self.0).pods.contains_key(name)
    }

    fn here(&self) -> Result<MutexGuard<'_, Api>, ClusterError> {
        let api = locked(&self.0);
        if api.away { Err(ClusterError::Unreachable("no route to host".into())) } else { Ok(api) }
    }
}

/// Strategic merge as far as a pod's status needs it.
fn merge_status(status: &mut Value, patch: &Value) {
    for (key, value) in patch.as_object().expect("a map") {
        match (key.as_str(), value) {
            (_, Value::Null) => {
                status.as_object_mut().expect("a map").remove(key);
            }
            ("conditions", Value::Array(list)) => {
                for condition in list {
                    let known = status["conditions"].as_array_mut().expect("conditions");
                    match known.iter_mut().find(|one| one["type"] == condition["type"]) {
                        Some(one) => *one = condition.clone(),
                        None => known.push(condition.clone()),
                    }
                }
            }
            ("podIPs" | "hostIPs", Value::Array(list)) => {
                assert_eq!(list[0], json!({ "$patch": "replace" }));
                status[key] = json!(list[1..]);
            }
            _ => status[key] = value.clone(),
        }
    }
}

impl Cluster for FakeCluster {
    fn watch(&self) -> mpsc::Receiver<PodNews> {
        let (sender, receiver) = mpsc::channel(1024);
        let mut api = locked(&self.0);
        if !api.away {
            let all = api.pods.values().map(Self::object).collect();
            sender.try_send(PodNews::All(all)).expect("room for news");
        }
        api.watchers.push(sender);
        receiver
    }

    fn patch_status<'a>(
        &'a self,
        pod: &'a PodRef,
        patch: Value,
    ) -> Later<'a, Result<Option<u64>, ClusterError>> {
        Box::pin(async move {
            let mut api = self.here()?;
            api.statuses.push((pod.name.clone(), patch["status"].clone()));
            let Some(stored) = api.pods.get_mut(&pod.name) else {
                return Err(ClusterError::NotFound);
            };
            if patch["metadata"].get("uid").is_some_and(|uid| *uid != stored["metadata"]["uid"]) {
                return Err(ClusterError::Replaced);
            }
            if let Some(change) = patch.get("status") {
                merge_status(&mut stored["status"], change);
            }
            Self::announce_pod(&mut api, &pod.name);
            Ok(Some(api.version))
        })
    }

    fn delete<'a>(&'a self, pod: &'a PodRef) -> Later<'a, Result<(), ClusterError>> {
        Box::pin(async move {
            let mut api = self.here()?;
            match api.pods.get(&pod.name) {
                None => Err(ClusterError::NotFound),
                Some(stored) if stored["metadata"]["uid"] != *pod.uid => {
                    Err(ClusterError::Replaced)
                }
                Some(_) => {
                    api.pods.remove(&pod.name);
                    Self::announce(&api, &PodNews::Gone { uid: pod.uid.clone() });
                    Ok(())
                }
            }
        })
    }

    fn config_map<'a>(
        &'a self,
        _namespace: &'a str,
        name: &'a str,
    ) -> Later<'a, Result<ConfigMap, ClusterError>> {
        Box::pin(async move {
            self.here()?.config_maps.get(name).cloned().ok_or(ClusterError::NotFound)
        })
    }

    fn secret<'a>(
        &'a self,
        _namespace: &'a str,
        name: &'a str,
    ) -> Later<'a, Result<Secret, ClusterError>> {
        Box::pin(
            async move { self.here()?.secrets.get(name).cloned().ok_or(ClusterError::NotFound) },
        )
    }

    fn create_event(&self, event: Event) -> Later<'_, Result<(), ClusterError>> {
        Box::pin(async move {
            self.here()?.events.push(SeenEvent {
                name: event.metadata.name.unwrap_or_default(),
                pod: event.involved_object.name.unwrap_or_default(),
                reason: event.reason.unwrap_or_default(),
                message: event.message.unwrap_or_default(),
                count: event.count.unwrap_or_default(),
            });
            Ok(())
        })
    }

    fn patch_event<'a>(
        &'a self,
        _namespace: &'a str,
        name: &'a str,
        patch: Value,
    ) -> Later<'a, Result<(), ClusterError>> {
        Box::pin(async move {
            let mut api = self.here()?;
            let event = api.events.iter_mut().find(|event| event.name == name);
            let event = event.ok_or(ClusterError::NotFound)?;
            event.count = patch["count"].as_i64().and_then(|n| n.try_into().ok()).expect("a count");
            Ok(())
        })
    }
}
