//! The OpenAPI document, held against what is answered.

use crate::{Setup, call, content_type, get, json_of, start};
use reqwest::Method;
use serde_json::{Value, json};

/// Whether `value` is what the schema says: types, required fields, enumerations and items.
fn conforms(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.strip_prefix('#').expect("a reference into the document");
        return conforms(document, document.pointer(pointer).expect("a schema"), value);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fitting = choices.iter().filter(|choice| conforms(document, choice, value).is_ok()).count();
        return if fitting == 1 { Ok(()) } else { Err(format!("{value} fits {fitting} of {schema}")) };
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kind_or_kinds = &schema["type"];
    let kinds = kind_or_kinds.as_array().cloned().unwrap_or_else(|| vec![kind_or_kinds.clone()]);
    let fits = |name: &Value| name == kind || (name == "number" && kind == "integer") || name.is_null();
    if !kinds.iter().any(fits) {
        return Err(format!("{value} is no {kinds:?}"));
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return Err(format!("{value} is none of {}", schema["enum"]));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        value.get(name).ok_or_else(|| format!("{name} is missing in {value}"))?;
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        value.get(name).map_or(Ok(()), |value| conforms(document, schema, value))?;
    }
    let mut items = value.as_array().into_iter().flatten().filter(|_| schema["items"].is_object());
    items.try_for_each(|item| conforms(document, &schema["items"], item))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_is_what_the_openapi_document_says() {
    let Setup { admin, stranger, .. } = &start().await;
    let document = json_of(get(stranger, true, "/openapi.json").await).await;
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() >= 9);
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().expect("operations") {
            let method: Method = method.to_uppercase().parse().expect("a method");
            // As an admin and as a stranger; what the document names, and what it forbids.
            for (client, accept) in [(admin, "*/*"), (stranger, "*/*"), (admin, "image/png")] {
                let body = call(json!(1), "p2p.v1.SystemService/Echo", json!({"message": "x"})).to_string();
                let request =
                    client.http(true).request(method.clone(), client.url(path)).header("accept", accept);
                let request = match method {
                    Method::POST => request.header("content-type", "application/json").body(body),
                    _ => request,
                };
                let answer = request.send().await.expect("an answer");
                let status = answer.status();
                assert!(status != 406 || accept == "image/png");
                for (header, value) in [
                    ("x-content-type-options", "nosniff"),
                    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
                    ("referrer-policy", "no-referrer"),
                ] {
                    assert_eq!(answer.headers()[header], value, "{path}");
                }
                let responses = &operation["responses"];
                let mut response = &responses[status.as_str()];
                if response.is_null() {
                    response = &responses["default"];
                }
                if let Some(name) = response["$ref"].as_str() {
                    response =
                        document.pointer(name.strip_prefix('#').expect("a reference")).expect("a response");
                }
                let media = content_type(&answer).split(';').next().expect("a type").to_owned();
                let schema = &response["content"][&media]["schema"];
                assert!(schema.is_object(), "{path}: {status} with {media} is not in the document");
                let text = answer.text().await.expect("text");
                let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
                conforms(&document, schema, &value).unwrap_or_else(|why| panic!("{path}: {why}"));
            }
        }
    }
    let options =
        admin.http(true).request(Method::OPTIONS, admin.url("/rpc")).send().await.expect("an answer");
    assert_eq!(
        (options.status().as_u16(), &options.headers()["allow"]),
        (204, &"POST, OPTIONS".parse().expect("text"))
    );
}
