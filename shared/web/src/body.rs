//! JSON bodies: read within bounds, refused when ambiguous.

use std::{collections::BTreeMap, fmt};

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};
use tidegate_aws::applications::sha256_hex;

use crate::problem::Problem;

/// Largest body, after the gateway's base64 is undone. 413 past that.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// A JSON document as it was sent. Extracted last, so that a wrong credential is told before a wrong body.
///
/// # Errors
/// 415 for another content type, 413 past [`MAX_BODY_BYTES`], 400 for what is not JSON or names a field twice.
pub struct JsonBody {
    pub value: Value,
    /// SHA-256 over method, path and body, in hexadecimal: whether a repeated `Idempotency-Key` repeats the same request.
    pub fingerprint: String,
    bytes: Bytes,
}

impl JsonBody {
    fn of(bytes: Bytes, fingerprint: String) -> Result<Self, Problem> {
        Ok(Self { value: parse(&bytes)?, fingerprint, bytes })
    }

    /// The value, which is `null` from then on.
    pub fn take(&mut self) -> Value {
        self.value.take()
    }

    /// Puts in the place of this member, or of the members of this object, where it is a number the text that it was written
    /// as: where a text is wanted, a number stands for the text that it looks like.
    pub fn write_out_numbers(&mut self, field: &str) {
        let Some(value) = self.value.get_mut(field) else { return };
        let whole: BTreeMap<String, &RawValue> = serde_json::from_slice(&self.bytes).unwrap_or_default();
        let Some(raw) = whole.get(field) else { return };
        let written: BTreeMap<String, &RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
        let members = value.as_object_mut().into_iter().flatten().filter(|(_, value)| value.is_number());
        for (name, value) in members {
            if let Some(raw) = written.get(name) {
                *value = Value::from(raw.get());
            }
        }
        if value.is_number() {
            *value = Value::from(raw.get());
        }
    }

    /// Puts in the place of all members of this object that are no text the text that they were written as. A parsed number
    /// has lost how it was written: `1.50` and `1e6`, and all digits past the seventeenth.
    #[must_use]
    pub fn with_written(mut self, field: &str) -> Self {
        if let Some(members) = self.value.get_mut(field).and_then(Value::as_object_mut) {
            let whole: BTreeMap<String, &RawValue> = serde_json::from_slice(&self.bytes).unwrap_or_default();
            let written = whole.get(field).and_then(|raw| serde_json::from_str(raw.get()).ok());
            let written: BTreeMap<String, &RawValue> = written.unwrap_or_default();
            for (name, value) in members.iter_mut().filter(|(_, value)| !value.is_string()) {
                if let Some(raw) = written.get(name) {
                    *value = Value::from(raw.get());
                }
            }
        }
        self
    }
}

/// Values of a body are never printed.
impl fmt::Debug for JsonBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonBody").finish_non_exhaustive()
    }
}

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        require_json(request.headers())?;
        let (fingerprint, bytes) = read(request).await?;
        Self::of(bytes, fingerprint)
    }
}

/// The body of a call that can do without: none at all is `{}`.
#[derive(Debug)]
pub struct OptionalJsonBody(pub JsonBody);

impl<S: Send + Sync> FromRequest<S> for OptionalJsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let json = require_json(request.headers());
        let (fingerprint, bytes) = read(request).await?;
        if bytes.is_empty() {
            return Ok(Self(JsonBody { value: Value::Object(Map::new()), fingerprint, bytes }));
        }
        json?;
        JsonBody::of(bytes, fingerprint).map(Self)
    }
}

/// # Errors
/// 415 for another content type.
pub fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") { Ok(()) } else { Err(Problem::unsupported_media_type()) }
}

async fn read(request: Request) -> Result<(String, Bytes), Problem> {
    // A line break cannot be part of method or path, so no two requests are taken for one.
    let mut identity = format!("{}\n{}\n", request.method(), request.uri().path()).into_bytes();
    let bytes = read_up_to(request, MAX_BODY_BYTES).await?;
    identity.extend_from_slice(&bytes);
    Ok((sha256_hex(&identity), bytes))
}

/// The bytes of a body as they were sent, at most so many.
///
/// # Errors
/// 413 for more, 400 for a body that cannot be read to its end.
pub async fn read_up_to(request: Request, limit_bytes: usize) -> Result<Bytes, Problem> {
    match Limited::new(request.into_body(), limit_bytes).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::payload_too_large(limit_bytes)),
        Err(_) => Err(Problem::unreadable_body()),
    }
}

/// JSON in which no object names a field twice: readers disagree about which of the two counts.
pub fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice::<Strict>(bytes).map(|strict| strict.0).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        if error.is_data() {
            Problem::malformed_json(format!("An object names a field twice, before line {line}, column {column}."))
        } else {
            Problem::malformed_json(format!("The body is not JSON, at line {line}, column {column}."))
        }
    })
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, Strict(value))) = fields.next_entry::<String, Strict>()? {
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("a field twice"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, http::StatusCode, routing::post};
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn only_a_json_body_of_bounded_size_is_read() {
        let check = async |content_type: Option<&str>, body: Vec<u8>, expect: StatusCode| {
            let app = Router::new().route("/", post(|body: JsonBody| async move { body.value.to_string() }));
            let mut request = Request::builder().method("POST").uri("/");
            if let Some(content_type) = content_type {
                request = request.header("content-type", content_type);
            }
            let told = format!("{content_type:?} {}", body.len());
            let response = app.oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
            assert_eq!(response.status(), expect, "{told}");
        };
        let json = Some("application/json");
        check(json, b"{}".to_vec(), StatusCode::OK).await;
        check(Some("Application/JSON; charset=utf-8"), b"{\"a\":[1,-1,1.5,null,true]}".to_vec(), StatusCode::OK).await;
        check(None, b"{}".to_vec(), StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
        check(Some("text/plain"), b"{}".to_vec(), StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
        check(json, Vec::new(), StatusCode::BAD_REQUEST).await;
        check(json, b"{\"a\":1".to_vec(), StatusCode::BAD_REQUEST).await;
        check(json, b"{} {}".to_vec(), StatusCode::BAD_REQUEST).await;
        check(json, b"\"\xff\"".to_vec(), StatusCode::BAD_REQUEST).await;
        check(json, b"{\"a\":1,\"a\":1}".to_vec(), StatusCode::BAD_REQUEST).await;
        check(json, b"[".repeat(100_000), StatusCode::BAD_REQUEST).await;
        let of_size = |size: usize| format!("\"{}\"", "a".repeat(size - 2)).into_bytes();
        check(json, of_size(MAX_BODY_BYTES), StatusCode::OK).await;
        check(json, of_size(MAX_BODY_BYTES + 1), StatusCode::PAYLOAD_TOO_LARGE).await;
    }

    #[test]
    fn members_are_kept_as_they_were_written() {
        let sent = br#"{"n":1.50,"v":{"a":"1.50","b": 1.50 ,"c":12345678901234567890123,"d":{"x":1e2, "y":[]},
            "\u0065":-0,"f":true,"g":null},"w":[1.50]}"#;
        let body = JsonBody::of(Bytes::from_static(sent), String::new()).unwrap().with_written("v");
        let expect = serde_json::json!({"n": 1.5, "w": [1.5], "v": {"a": "1.50", "b": "1.50",
            "c": "12345678901234567890123", "d": r#"{"x":1e2, "y":[]}"#, "e": "-0", "f": "true", "g": "null"}});
        assert_eq!(body.value, expect);
        for other in [r#"{"v":[1.50]}"#, r#"{"v":1.50}"#, "[1.50]", "1.50", "{}"] {
            let body = JsonBody::of(other.into(), String::new()).unwrap().with_written("v");
            assert_eq!(body.value, serde_json::from_str::<Value>(other).unwrap(), "{other}");
        }
    }

    #[test]
    fn numbers_are_texts_as_they_were_written() {
        let sent =
            br#"{"n":1.50,"v":{"a":"1.50","b": 1.50 ,"c":12345678901234567890123,"d":{"x":1e2},"\u0065":-0,"f":true,
            "g":null},"w":[1.50]}"#;
        let mut body = JsonBody::of(Bytes::from_static(sent), String::new()).unwrap();
        for field in ["n", "v", "w", "x"] {
            body.write_out_numbers(field);
        }
        let expect = serde_json::json!({"n": "1.50", "w": [1.5], "v": {"a": "1.50", "b": "1.50",
            "c": "12345678901234567890123", "d": {"x": 100.0}, "e": "-0", "f": true, "g": null}});
        assert_eq!(body.value, expect);
        for other in ["[1.50]", "1.50", "{}", r#"{"v":null}"#] {
            let mut body = JsonBody::of(other.into(), String::new()).unwrap();
            body.write_out_numbers("v");
            assert_eq!(body.value, serde_json::from_str::<Value>(other).unwrap(), "{other}");
        }
    }

    #[tokio::test]
    async fn a_fingerprint_is_of_one_request() {
        let print = async |path: &str, body: &'static str| {
            read(Request::builder().uri(path).body(Body::from(body)).unwrap()).await.unwrap().0
        };
        assert_eq!(print("/a", "{}").await, print("/a?b", "{}").await);
        assert_ne!(print("/a", "{}").await, print("/b", "{}").await);
        assert_ne!(print("/a", "{}").await, print("/a", "{ }").await);
    }
}
