//! The JSON Schema of the report, generated from its types. The file beside the code is checked
//! against it, so that scripts can rely on what the file says.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::types::Report;

/// The schema of what is written: every key is there, unknown ones as `null`.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut value = settings.into_generator().into_root_schema_for::<Report>().to_value();
    without_defaults(&mut value);
    if let Some(object) = value.as_object_mut() {
        object.insert("title".to_owned(), "Stampede report".into());
    }
    value
}

/// Defaults are for reading older reports; to a script that reads new ones they say nothing.
fn without_defaults(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if object.contains_key("type") || object.contains_key("$ref") {
                object.remove("default");
            }
            object.values_mut().for_each(without_defaults);
        }
        Value::Array(list) => list.iter_mut().for_each(without_defaults),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the schema ships.
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/report.schema.json");

    /// `STAMPEDE_BLESS=1` writes the file anew.
    #[test]
    fn the_schema_file_is_what_the_types_say() {
        let mut text = serde_json::to_string_pretty(&schema()).unwrap();
        text.push('\n');
        if std::env::var_os("STAMPEDE_BLESS").is_some() {
            std::fs::write(FILE, &text).unwrap();
        }
        let shipped = std::fs::read_to_string(FILE).unwrap_or_default();
        assert!(
            shipped == text,
            "tools/report/report.schema.json is stale; write it anew with STAMPEDE_BLESS=1 \
             cargo test -p stampede-report the_schema_file"
        );
    }
}
