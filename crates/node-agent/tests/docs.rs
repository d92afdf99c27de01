//! docs/kubernetes.md says what becomes of each field of a PodSpec; the node's own table decides.
//! `GRAPHLET_UPDATE=1 cargo test -p node-agent --test docs` writes the table anew.

use node_agent::pods::{Class, POD_SPEC_FIELDS, Values};

#[test]
fn every_field_of_a_pod_spec_stands_in_the_docs_as_the_node_treats_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kubernetes.md");
    let text = std::fs::read_to_string(path).expect("the page");
    let (before, rest) = text.split_once(BEGIN).expect("where the table begins");
    let (table, after) = rest.split_once(END).expect("where the table ends");
    let wanted = format!("\n{}", fields());
    if std::env::var_os("GRAPHLET_UPDATE").is_some() {
        std::fs::write(path, [before, BEGIN, &wanted, END, after].concat()).expect("written");
        return;
    }
    for (found, wanted) in table.lines().zip(wanted.lines()) {
        assert_eq!(found, wanted, "GRAPHLET_UPDATE=1 cargo test -p node-agent --test docs");
    }
    assert_eq!(table, wanted, "GRAPHLET_UPDATE=1 cargo test -p node-agent --test docs");
}

fn fields() -> String {
    let mut table = String::from("| field | here | how, or why not |\n|---|---|---|\n");
    for field in POD_SPEC_FIELDS {
        let class = match field.class {
            Class::Honoured => "honoured",
            Class::Met => "met",
            Class::Refused => "refused",
        };
        let values = match field.values {
            Values::Any => String::new(),
            Values::Only(values) => format!("only `{}`", values.join("`, `")),
            Values::NotZero => "not 0".to_owned(),
        };
        let note = [values.as_str(), field.note]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("; ");
        table += &format!("| `{}` | {class} | {note} |\n", field.path);
    }
    table
}

const BEGIN: &str = "<!-- fields: made by crates/node-agent/tests/docs.rs -->";
const END: &str = "<!-- end of fields -->";
