//! Schemas against what is read: what loads is valid, and what is refused for its shape is not.

use ringway::control::read::UNDESCRIBED;
use ringway::control::schema;
use serde_json::Value;

use super::{compare, files, golden, load_text};

/// What of JSON Schema the schemas use, by a validator of the test's own: the first thing that is wrong.
fn wrong(schema: &Value, value: &Value, at: &str) -> Option<String> {
    if let Some(either) = schema["anyOf"].as_array() {
        return either
            .iter()
            .all(|one| wrong(one, value, at).is_some())
            .then(|| format!("{at}: nothing of anyOf fits"));
    }
    // A field that is null counts as absent.
    if value.is_null() {
        return None;
    }
    for rule in schema["allOf"].as_array().into_iter().flatten() {
        if wrong(&rule["if"], value, at).is_none()
            && let Some(found) = wrong(&rule["then"], value, at)
        {
            return Some(found);
        }
    }
    if let Some(wanted) = schema["type"].as_str() {
        let fits = match wanted {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            other => panic!("{other}"),
        };
        if !fits {
            return Some(format!("{at}: not {wanted}"));
        }
    }
    let bad_const = !schema["const"].is_null() && schema["const"] != *value;
    let bad_enum = schema["enum"].as_array().is_some_and(|values| !values.contains(value));
    let number = |name: &str| schema[name].as_i64();
    let bad_number = value.as_i64().is_some_and(|value| {
        number("minimum").is_some_and(|min| value < min) || number("maximum").is_some_and(|max| value > max)
    });
    let bad_text = value.as_str().is_some_and(|text| {
        let length = i64::try_from(text.chars().count()).unwrap();
        number("minLength").is_some_and(|min| length < min)
            || number("maxLength").is_some_and(|max| length > max)
            || schema["pattern"].as_str().is_some_and(|pattern| !regex::Regex::new(pattern).unwrap().is_match(text))
    });
    if bad_const || bad_enum || bad_number || bad_text {
        return Some(format!("{at}: {value}"));
    }
    if let Some(items) = value.as_array() {
        let length = i64::try_from(items.len()).unwrap();
        if number("minItems").is_some_and(|min| length < min) || number("maxItems").is_some_and(|max| length > max) {
            return Some(format!("{at}: {length} items"));
        }
        return items
            .iter()
            .enumerate()
            .find_map(|(index, item)| wrong(&schema["items"], item, &format!("{at}[{index}]")));
    }
    let fields = value.as_object()?;
    for name in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            return Some(format!("{at}: {name} is missing"));
        }
    }
    fields.iter().find_map(|(name, value)| {
        let at = format!("{at}.{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => Some(format!("{at}: unknown")),
            (Value::Null, more) => wrong(more, value, &at),
            (known, _) => wrong(known, value, &at),
        }
    })
}

fn documents(text: &str) -> Vec<Value> {
    let parts = text.split("\n---").filter(|part| !part.trim().is_empty());
    parts
        .filter_map(|part| serde_saphyr::from_str::<Value>(part.trim_start_matches("---")).ok())
        .filter(Value::is_object)
        .collect()
}

#[test]
fn everything_that_loads_is_valid() {
    let schema = schema::all();
    let mut count = 0;
    let examples = files(&golden("../../examples"), ".yaml");
    for path in
        examples.into_iter().chain(files(&golden("explain"), ".in.yaml")).chain(files(&golden("import"), ".out.yaml"))
    {
        let text = std::fs::read_to_string(&path).unwrap();
        for document in documents(&text) {
            count += 1;
            assert_eq!(wrong(&schema, &document, "$"), None, "{}: {document:#}", path.display());
        }
    }
    assert!(count > 200, "{count}");
}

#[test]
fn what_is_refused_for_its_shape_is_not_valid() {
    let schema = schema::all();
    let gateway = |listener: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: a}}\nspec: {{gatewayClassName: ringway, listeners: [{listener}]}}\n"
        )
    };
    for (listener, good) in [
        ("{name: a, port: 80, protocol: HTTP}", true),
        ("{name: a, port: 70000, protocol: HTTP}", false),
        ("{name: A, port: 80, protocol: HTTP}", false),
        ("{name: a, port: 80}", false),
        ("{name: a, port: 80, protocol: HTTP, hostname: a_b}", false),
        ("{name: a, port: 80, protocol: HTTP, prot: x}", false),
        ("{name: a, port: 80, protocol: TLS, tls: {mode: Passthru}}", false),
    ] {
        let text = gateway(listener);
        assert_eq!(load_text("a.yaml", &text, false).errors() == 0, good, "{listener}");
        let document = documents(&text).remove(0);
        assert_eq!(wrong(&schema, &document, "$").is_none(), good, "{listener}");
    }
}

#[test]
fn every_field_is_described() {
    for kind in schema::kinds() {
        let schema = schema::of_kind(kind).unwrap();
        assert!(!schema.to_string().contains(UNDESCRIBED), "a type of {kind} has no schema: {schema:#}");
        assert_eq!(schema::of_kind(&kind.to_lowercase()), Some(schema));
    }
    assert_eq!(schema::of_kind("Ingress"), None);
}

#[test]
fn the_reference_is_what_is_read() {
    let path = golden("../../docs/reference.md");
    assert!(compare(&path, &schema::reference()), "docs/reference.md: run with RINGWAY_BLESS=1");
}
