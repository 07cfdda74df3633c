//! Schemas against `check`, value by value: what a schema lists is accepted, and what is accepted is listed.

use std::collections::BTreeSet;

use ringway::control::Loaded;
use ringway::control::schema;
use serde_json::{Map, Value, json};

use super::load_text;

/// A step from a value into it.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Item,
}

/// Strings of which one is good for what is not said otherwise.
const TEXTS: [&str; 9] =
    ["a", "/a", "1s", "10.0.0.0/8", "10.0.0.1", "a.example", "text/html", "ringway.dev/gateway", "https://a.example"];
/// Fields whose shape no schema says.
const FIELDS: [(&str, &str); 13] = [
    ("controllerName", "ringway.dev/gateway"),
    ("addresses", "10.0.0.1"),
    ("ip", "10.0.0.1"),
    ("clientCIDRs", "10.0.0.0/8"),
    ("trustedCIDRs", "10.0.0.0/8"),
    ("exemptCIDRs", "10.0.0.0/8"),
    ("path", "/a"),
    ("interface", "eth0"),
    ("contentTypes", "text/html"),
    ("replaceFullPath", "/a"),
    ("replacePrefixMatch", "/a"),
    ("unit", "Second"),
    ("realm", "a"),
];

fn one_of(schema: &Value) -> &Value {
    schema["anyOf"].as_array().map_or(schema, |either| &either[0])
}

/// The least that a schema allows.
fn least(schema: &Value, field: &str) -> Value {
    let schema = one_of(schema);
    if field == "statusCodes" && schema["type"] == "array" {
        return json!([{ "value": 404 }]);
    }
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(values) = schema["enum"].as_array() {
        return values[0].clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap());
            // A reference to a Service has a port.
            let properties = schema["properties"].as_object();
            let is_service =
                properties.is_some_and(|all| ["group", "kind", "port"].iter().all(|name| all.contains_key(*name)));
            let fields = required.chain(is_service.then_some("port"));
            Value::Object(fields.map(|name| (name.to_owned(), least(&schema["properties"][name], name))).collect())
        }
        Some("array") => {
            let count = schema["minItems"].as_u64().unwrap_or(0);
            (0..count).map(|_| least(&schema["items"], field)).collect()
        }
        Some("integer") => json!(schema["minimum"].as_i64().unwrap_or(1).max(1)),
        Some("boolean") => json!(true),
        Some("string") => {
            if let Some((_, text)) = FIELDS.iter().find(|(name, _)| *name == field) {
                return json!(text);
            }
            let pattern = schema["pattern"].as_str().map(|pattern| regex::Regex::new(pattern).unwrap());
            let min = usize::try_from(schema["minLength"].as_u64().unwrap_or(0)).unwrap();
            let fits =
                |text: &&&str| text.len() >= min && pattern.as_ref().is_none_or(|pattern| pattern.is_match(text));
            json!(TEXTS.iter().find(fits).unwrap_or_else(|| panic!("no text for {field}: {schema}")))
        }
        _ => json!("a"),
    }
}

/// Every schema within one, with the way to it, without what is below `status` and `metadata`.
fn parts<'s>(schema: &'s Value, path: &mut Vec<Step>, found: &mut Vec<(Vec<Step>, &'s Value)>) {
    let schema = one_of(schema);
    found.push((path.clone(), schema));
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        if path.is_empty() && ["apiVersion", "kind", "metadata", "status"].contains(&name.as_str()) {
            continue;
        }
        path.push(Step::Field(name.clone()));
        parts(field, path, found);
        path.pop();
    }
    if schema["type"] == "array" {
        path.push(Step::Item);
        parts(&schema["items"], path, found);
        path.pop();
    }
}

/// Puts a value at the end of a way, with the least that has to be around it.
fn around(schema: &Value, path: &[Step], value: Value, field: &str) -> Value {
    let schema = one_of(schema);
    match path.split_first() {
        None => value,
        Some((Step::Item, rest)) => {
            let item = around(&schema["items"], rest, value, field);
            let more = schema["minItems"].as_u64().unwrap_or(0).saturating_sub(1);
            std::iter::once(item).chain((0..more).map(|_| least(&schema["items"], field))).collect()
        }
        Some((Step::Field(name), rest)) => {
            let mut object = least(schema, field);
            object[name] = around(&schema["properties"][name], rest, value, name);
            goes_with(schema, name, &mut object);
            object
        }
    }
}

/// A field goes with the type, or whatever else tells which it is, that is called like it.
fn goes_with(schema: &Value, name: &str, object: &mut Value) -> bool {
    let mut found = false;
    for (field, described) in schema["properties"].as_object().into_iter().flatten() {
        let values = one_of(described)["enum"].as_array().into_iter().flatten();
        let like = |value: &&Value| value.as_str().is_some_and(|value| value.eq_ignore_ascii_case(name));
        if let Some(value) = values.into_iter().find(like) {
            object[field] = value.clone();
            found = true;
        }
    }
    found
}

fn load(object: &Value) -> Loaded {
    load_text("a.yaml", &object.to_string(), false)
}

fn schema_at<'s>(schema: &'s Value, path: &[Step]) -> &'s Value {
    path.iter().fold(one_of(schema), |schema, step| {
        one_of(match step {
            Step::Field(name) => &schema["properties"][name],
            Step::Item => &schema["items"],
        })
    })
}

/// The object with `value` at `path`, in as many forms as it takes until one is accepted: what has to stand beside a value is
/// said by rules that no schema has. `Err`: what was said of the first.
fn accepted(whole: &Value, path: &[Step], value: &Value) -> Result<(), String> {
    let complaint = |object: &Value| {
        let loaded = load(object);
        let errors = loaded.diagnostics.iter().map(|each| loaded.sources.line(each));
        let errors: Vec<String> = errors.filter(|line| line.contains("error:")).collect();
        (!errors.is_empty()).then(|| errors.join("\n"))
    };
    let Some((Step::Field(name), above)) = path.split_last() else { panic!("{path:?}") };
    let parent = schema_at(whole, above);
    let fields: &Map<String, Value> = parent["properties"].as_object().unwrap();
    // What else may be given on the way to it: nothing, or one field of one of the objects around it.
    let mut ways: Vec<Option<(usize, &String)>> = vec![None];
    for depth in 1..above.len() {
        let around = schema_at(whole, &above[..depth])["properties"].as_object().into_iter().flatten();
        ways.extend(around.map(|(field, _)| Some((depth, field))).filter(|way| match (way, &above[depth]) {
            (Some((_, field)), Step::Field(own)) => *field != own,
            _ => false,
        }));
    }
    let mut first: Option<String> = None;
    let mut attempt = |given: &[&(&String, Value)]| {
        let mut object = least(parent, "");
        object[name] = value.clone();
        for (field, beside) in given {
            object[field.as_str()] = beside.clone();
        }
        ways.iter().any(|way| {
            let mut put = around(whole, above, object.clone(), "");
            if let Some((depth, field)) = way {
                let schema = schema_at(whole, &above[..*depth]);
                let outer = at(&mut put, &above[..*depth]);
                outer[field.as_str()] = fullest(&schema["properties"][field.as_str()], field);
                goes_with(schema, field, outer);
            }
            let why = complaint(&put);
            first = first.take().or_else(|| why.as_ref().map(|why| format!("{why}\n{put}")));
            why.is_none()
        })
    };
    let mut others: Vec<(&String, Value)> = Vec::new();
    for (field, schema) in fields.iter().filter(|(field, _)| *field != name) {
        match one_of(schema)["enum"].as_array() {
            Some(values) => others.extend(values.iter().map(|value| (field, value.clone()))),
            None => others.extend([(field, least(schema, field)), (field, fullest(schema, field))]),
        }
    }
    let good = attempt(&[])
        || others.iter().any(|one| attempt(&[one]))
        || others.iter().any(|one| others.iter().any(|other| one.0 < other.0 && attempt(&[one, other])));
    if good { Ok(()) } else { Err(first.unwrap()) }
}

fn at<'v>(value: &'v mut Value, path: &[Step]) -> &'v mut Value {
    path.iter().fold(value, |value, step| match step {
        Step::Field(name) => &mut value[name.as_str()],
        Step::Item => &mut value[0],
    })
}

/// A value with an item in its list, or the most that a number may be.
fn fullest(schema: &Value, field: &str) -> Value {
    let schema = one_of(schema);
    match schema["type"].as_str() {
        // What says the same in more words is wanted by some filters.
        Some("array") if field == "matches" && schema["items"]["properties"]["path"].is_object() => {
            json!([{ "path": { "type": "PathPrefix", "value": "/a" } }])
        }
        Some("array") => json!([least(&schema["items"], field)]),
        Some("integer") => schema.get("maximum").cloned().unwrap_or_else(|| least(schema, field)),
        Some("object") => {
            let mut object = least(schema, field);
            for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                if one_of(inner)["type"] == "object" && goes_with(schema, name, &mut object) {
                    object[name] = least(inner, name);
                }
            }
            object
        }
        _ => least(schema, field),
    }
}

/// What an error lists behind these words.
fn listed(loaded: &Loaded, words: &str) -> Option<BTreeSet<String>> {
    let texts = loaded.diagnostics.iter().flat_map(|each| [Some(&each.message), each.help.as_ref()]).flatten();
    let text = texts
        .filter(|text| text.contains("zzzzzzzzzzzz") || text.contains("-9999") || text.starts_with(words))
        .find_map(|text| Some(text.split_once(words)?.1.to_owned()))?;
    Some(text.split(", ").map(|each| each.trim_matches('"').to_owned()).collect())
}

#[test]
fn every_value_that_a_schema_lists_is_accepted() {
    let mut refused = Vec::new();
    let mut count = 0;
    for kind in schema::kinds() {
        let whole = schema::of_kind(kind).unwrap();
        let mut all = Vec::new();
        parts(&whole, &mut Vec::new(), &mut all);
        for (path, part) in all {
            let bounds = ["minimum", "maximum"].into_iter().filter_map(|bound| part.get(bound));
            for value in part["enum"].as_array().into_iter().flatten().chain(bounds) {
                let path = if path.last() == Some(&Step::Item) { &path[..path.len() - 1] } else { &path };
                let is_list = schema_at(&whole, path)["type"] == "array";
                let wanted = if is_list { json!([value]) } else { value.clone() };
                count += 1;
                if let Err(why) = accepted(&whole, path, &wanted) {
                    refused.push(format!("{kind} {path:?} {value}: {why}"));
                }
            }
        }
    }
    assert!(count > 150, "{count}");
    assert!(refused.is_empty(), "{}", refused.join("\n\n"));
}

#[test]
fn what_is_read_is_what_a_schema_lists() {
    let nonsense = "zzzzzzzzzzzz";
    let mut wrong = Vec::new();
    let (mut fields, mut values) = (0, 0);
    for kind in schema::kinds() {
        let whole = schema::of_kind(kind).unwrap();
        let mut all = Vec::new();
        parts(&whole, &mut Vec::new(), &mut all);
        for (path, part) in all {
            if part["enum"].is_array() {
                let known = part["enum"].as_array().unwrap().iter();
                let known: BTreeSet<String> =
                    known.map(|value| value.to_string().trim_matches('"').to_owned()).collect();
                let other = if part["type"] == "integer" { json!(-9999) } else { json!(nonsense) };
                let found = listed(&load(&around(&whole, &path, other, "")), "supported values: ");
                values += known.len();
                if found.as_ref() != Some(&known) {
                    wrong.push(format!("{kind} {path:?}: read are {found:?}, listed are {known:?}"));
                }
            } else if let (Some(min), Some(max)) = (part["minimum"].as_i64(), part["maximum"].as_i64()) {
                for outside in [min.checked_sub(1), max.checked_add(1)].into_iter().flatten() {
                    let told = super::said(&load(&around(&whole, &path, json!(outside), "")));
                    if !told.contains(&format!("{outside} is out of range: expected {min} to {max}")) {
                        wrong.push(format!("{kind} {path:?}: {outside} is not refused: {told}"));
                    }
                }
            } else if part["additionalProperties"] == false {
                let known: BTreeSet<String> = part["properties"].as_object().unwrap().keys().cloned().collect();
                let mut object = least(part, "");
                object[nonsense] = json!(1);
                let found = listed(&load(&around(&whole, &path, object, "")), "known fields: ");
                fields += known.len();
                // Fields that cannot be read do not end the reading, so all are told.
                if found.as_ref() != Some(&known) {
                    wrong.push(format!("{kind} {path:?}: read are {found:?}, listed are {known:?}"));
                }
            }
        }
    }
    assert!(fields > 400 && values > 150, "{fields} {values}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
