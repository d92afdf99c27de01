//! ConfigMaps and Secrets as folders for WASI commands.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container, KeyToPath, PodSpec, Volume};

use super::{
    admission::is_api_access,
    env::{SettingError, Source, Sources},
};

/// The volumes that a container mounts, but for the one that admission adds, with the paths
/// inside the guest.
pub(crate) fn mounted<'p>(
    spec: &'p PodSpec,
    container: &'p Container,
) -> Result<Vec<(&'p Volume, &'p str)>, SettingError> {
    let volume = |name: &str| spec.volumes.iter().flatten().find(|volume| volume.name == name);
    let mut mounted = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        match volume(&mount.name) {
            Some(volume) if is_api_access(volume) => {}
            Some(volume) => mounted.push((volume, mount.mount_path.as_str())),
            None => {
                let message = format!("there is no volume {:?} in this pod", mount.name);
                return Err(SettingError::Invalid(message));
            }
        }
    }
    Ok(mounted)
}

/// What a volume is made of: the source, its name, the keys, and whether it may be missing.
fn source(volume: &Volume) -> Option<(Source, String, &Option<Vec<KeyToPath>>, bool)> {
    if let Some(map) = &volume.config_map {
        let optional = map.optional == Some(true);
        Some((Source::ConfigMap, map.name.clone(), &map.items, optional))
    } else {
        let secret = volume.secret.as_ref()?;
        let name = secret.secret_name.clone().unwrap_or_default();
        Some((Source::Secret, name, &secret.items, secret.optional == Some(true)))
    }
}

/// What a volume refers to.
pub(crate) fn reference(volume: &Volume) -> Option<(Source, String)> {
    source(volume).map(|(source, name, ..)| (source, name))
}

/// The files of a volume, by path inside it.
pub(crate) fn files(
    volume: &Volume,
    sources: &Sources,
) -> Result<BTreeMap<PathBuf, Vec<u8>>, SettingError> {
    let Some((source, name, items, optional)) = source(volume) else {
        let message = format!("volume {:?} is neither a ConfigMap nor a Secret", volume.name);
        return Err(SettingError::Invalid(message));
    };
    let Some(data) = sources.data(source, &name, optional)? else { return Ok(BTreeMap::new()) };
    let mut files = BTreeMap::new();
    match items {
        None => {
            for (key, value) in data {
                files.insert(inside(key)?, value.clone());
            }
        }
        Some(items) => {
            for item in items {
                match data.get(&item.key) {
                    Some(value) => {
                        files.insert(inside(&item.path)?, value.clone());
                    }
                    None if optional => {}
                    None => return Err(sources.no_key(source, &name, &item.key)),
                }
            }
        }
    }
    Ok(files)
}

/// A path that stays inside the volume. The API server checks it too; this side does not rely on
/// it, because the agent writes as root.
fn inside(path: &str) -> Result<PathBuf, SettingError> {
    let parts: Option<PathBuf> = Path::new(path)
        .components()
        .map(|part| match part {
            Component::Normal(part) => Some(part),
            _ => None,
        })
        .collect();
    parts
        .filter(|parts| !parts.as_os_str().is_empty())
        .ok_or_else(|| SettingError::Invalid(format!("path {path:?} leaves the volume")))
}

/// Writes the folder anew. The folder is for one pod, whose container does not run now.
pub(crate) fn write(dir: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    make_dir(dir)?;
    for (path, contents) in files {
        let mut parent = dir.to_owned();
        for part in path.parent().into_iter().flat_map(Path::components) {
            parent.push(part);
            make_dir(&parent)?;
        }
        let file = dir.join(path);
        fs::write(&file, contents)?;
        // Read by the pod's own uid; the folders above let nobody else through.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o444))?;
    }
    Ok(())
}

fn make_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_path_leaves_the_volume() {
        for (path, good) in [
            ("a", true),
            ("a/b.txt", true),
            ("..data", true),
            ("../a", false),
            ("a/../../b", false),
            ("/etc/passwd", false),
            (".", false),
            ("", false),
        ] {
            assert_eq!(inside(path).is_ok(), good, "path {path:?}");
        }
    }

    #[test]
    fn a_folder_is_written_anew_each_time() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let volume = dir.path().join("volume");
        let first = [("a".into(), b"1".to_vec()), ("d/e".into(), b"2".to_vec())].into();
        write(&volume, &first).expect("written");
        assert_eq!(fs::read(volume.join("d/e")).expect("a file"), b"2");
        write(&volume, &[("a".into(), b"3".to_vec())].into()).expect("written again");
        assert_eq!(fs::read(volume.join("a")).expect("a file"), b"3");
        assert!(!volume.join("d").exists());
    }

    #[test]
    fn the_volume_that_admission_adds_is_not_mounted() {
        let spec: PodSpec = serde_json::from_value(json!({
            "containers": [{ "name": "app", "volumeMounts": [
                { "name": "kube-api-access-1", "mountPath": "/var/run/x" },
                { "name": "images", "mountPath": "/in" }
            ] }],
            "volumes": [
                { "name": "kube-api-access-1", "projected": { "sources": [] } },
                { "name": "images", "configMap": { "name": "m" } }
            ]
        }))
        .expect("a pod spec");
        let mounted = mounted(&spec, &spec.containers[0]).expect("volumes");
        let seen: Vec<_> = mounted.iter().map(|(volume, path)| (&*volume.name, *path)).collect();
        assert_eq!(seen, [("images", "/in")]);
    }
}
