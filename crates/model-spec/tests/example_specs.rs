//! The specs that the repository ships.

use std::{fs, path::Path};

#[test]
fn every_example_spec_is_valid_and_names_its_files_beside_itself() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let mut seen = 0;
    for entry in fs::read_dir(&models).unwrap() {
        let path = entry.unwrap().path().join("model.toml");
        if !path.is_file() {
            continue;
        }
        let parsed = model_spec::parse(&fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|mistakes| panic!("{}: {mistakes}", path.display()));
        let folder = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(parsed.spec.model.name, folder);
        assert_eq!(parsed.spec.model.onnx, format!("{folder}.onnx"));
        seen += 1;
    }
    assert!(seen >= 4, "only {seen} specs below {}", models.display());
}
