//! Reading a request's fields: every fault is collected, and what is built from the fields exists only without one.
//!
//! ```
//! # use tidegate_web::form::Form;
//! # use tidegate_domain::application::ContainerName;
//! # fn read(body: serde_json::Value) -> Result<(ContainerName, u16), tidegate_web::Problem> {
//! let mut form = Form::of_body(body)?;
//! let name = form.required("name", None, |text: String| ContainerName::parse(&text));
//! let port = form.defaulted("port", 80, Ok);
//! form.finish(|| Some((name?, port)))
//! # }
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use tidegate_domain::{
    invalid::{FieldError, Invalid},
    secret::Secret,
    text::fits_a_line,
};

use crate::problem::Problem;

/// An object's fields, taken out one by one.
///
/// Each getter has three sources: the field itself; where it is absent, what is stored or the default; else a fault. All
/// getters are called before the first `?` on one of their results, so that all faults are found.
pub struct Form {
    path: String,
    fields: Map<String, Value>,
    known: BTreeSet<&'static str>,
    errors: Vec<FieldError>,
}

fn not_an_object() -> FieldError {
    wrong_type("an object").at("")
}

impl Form {
    /// # Errors
    /// 422 for a JSON value that is not an object.
    pub fn of_body(body: Value) -> Result<Self, Problem> {
        match body {
            Value::Object(fields) => Ok(Self::at(String::new(), fields)),
            _ => Err(Problem::validation_failed(vec![not_an_object()])),
        }
    }

    /// As [`Form::of_body`], where a body that is no object is one more fault to be told with the others.
    pub fn of_any_body(body: Value) -> Self {
        match body {
            Value::Object(fields) => Self::at(String::new(), fields),
            _ => Self { errors: vec![not_an_object()], ..Self::at(String::new(), Map::new()) },
        }
    }

    /// The parameters of a query; all of them texts, and numbers where a number is asked for.
    ///
    /// # Errors
    /// 422 for a query that cannot be decoded or names a parameter twice.
    pub fn of_query(query: Option<&str>) -> Result<Self, Problem> {
        let uri = axum::http::Uri::builder().path_and_query(format!("/?{}", query.unwrap_or_default())).build();
        let pairs = uri.ok().and_then(|uri| axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri).ok());
        let Some(axum::extract::Query(pairs)) = pairs else {
            let invalid = Invalid::new("format-query", "cannot be decoded", "percent-encode its names and values");
            return Err(Problem::validation_failed(vec![invalid.at("query")]));
        };
        let mut form = Self::at(String::new(), Map::new());
        for (name, value) in pairs {
            if form.fields.insert(name.clone(), Value::String(value)).is_some() {
                let twice = Invalid::new("duplicate", "is given twice", "give it once");
                form.errors.push(twice.at(name));
            }
        }
        Ok(form)
    }

    fn at(path: String, fields: Map<String, Value>) -> Self {
        Self { path, fields, known: BTreeSet::new(), errors: Vec::new() }
    }

    fn take(&mut self, field: &'static str) -> Option<Value> {
        self.known.insert(field);
        self.fields.remove(field)
    }

    fn path_of(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    /// A fault that the caller found, such as two fields that do not go together.
    pub fn refuse(&mut self, field: &str, why: Invalid) {
        let path = self.path_of(field);
        self.errors.push(why.at(path));
    }

    /// Faults that a whole document in a field has, each with its own place.
    pub fn refuse_all(&mut self, faults: Vec<FieldError>) {
        self.errors.extend(faults);
    }

    fn read<V: FromField, T>(
        &mut self,
        field: &str,
        value: Value,
        parse: impl FnOnce(V) -> Result<T, Invalid>,
    ) -> Option<T> {
        match V::from_field(value).and_then(parse) {
            Ok(value) => Some(value),
            Err(invalid) => {
                self.refuse(field, invalid);
                None
            }
        }
    }

    /// A field that must be there, unless `stored` has it already.
    pub fn required<V: FromField, T>(
        &mut self,
        field: &'static str,
        stored: Option<T>,
        parse: impl FnOnce(V) -> Result<T, Invalid>,
    ) -> Option<T> {
        match (self.take(field), stored) {
            (Some(value), _) => self.read(field, value, parse),
            (None, Some(stored)) => Some(stored),
            (None, None) => {
                self.refuse(field, missing());
                None
            }
        }
    }

    /// A field that may be left out, which keeps `default`: what is stored, or what the documentation says.
    pub fn defaulted<V: FromField, T>(
        &mut self,
        field: &'static str,
        default: T,
        parse: impl FnOnce(V) -> Result<T, Invalid>,
    ) -> T {
        match self.take(field) {
            Some(value) => self.read(field, value, parse).unwrap_or(default),
            None => default,
        }
    }

    /// A field that may be left out, which keeps `stored`, or be `null`, which means none.
    pub fn nullable<V: FromField, T>(
        &mut self,
        field: &'static str,
        stored: Option<T>,
        parse: impl FnOnce(V) -> Result<T, Invalid>,
    ) -> Option<T> {
        match self.take(field) {
            Some(Value::Null) => None,
            Some(value) => self.read(field, value, parse),
            None => stored,
        }
    }

    /// As [`Form::nullable`], for an object. `read` must take its fields even if it gives up on the whole.
    pub fn object<T>(
        &mut self,
        field: &'static str,
        stored: Option<T>,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        match self.take(field) {
            Some(Value::Null) => None,
            Some(value) => {
                let path = self.path_of(field);
                self.inner(path, value, read)
            }
            None => stored,
        }
    }

    /// As [`Form::defaulted`], for a list of objects.
    pub fn objects<T>(
        &mut self,
        field: &'static str,
        default: Vec<T>,
        mut read: impl FnMut(&mut Self) -> Option<T>,
    ) -> Vec<T> {
        let path = self.path_of(field);
        match self.take(field) {
            Some(Value::Array(items)) => {
                let items = items.into_iter().enumerate();
                items.filter_map(|(i, item)| self.inner(format!("{path}[{i}]"), item, &mut read)).collect()
            }
            Some(_) => {
                self.errors.push(wrong_type("a list").at(path));
                default
            }
            None => default,
        }
    }

    /// As [`Form::defaulted`], for a list of texts or numbers.
    pub fn items<V: FromField, T>(
        &mut self,
        field: &'static str,
        default: Vec<T>,
        mut parse: impl FnMut(V) -> Result<T, Invalid>,
    ) -> Vec<T> {
        match self.take(field) {
            Some(Value::Array(items)) => {
                let items = items.into_iter().enumerate();
                items.filter_map(|(i, item)| self.read(&format!("{field}[{i}]"), item, &mut parse)).collect()
            }
            Some(_) => {
                self.refuse(field, wrong_type("a list"));
                default
            }
            None => default,
        }
    }

    fn inner<T>(&mut self, path: String, value: Value, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let Value::Object(fields) = value else {
            self.errors.push(wrong_type("an object").at(path));
            return None;
        };
        let mut inner = Self::at(path, fields);
        let read = read(&mut inner);
        self.errors.append(&mut inner.into_faults());
        read
    }

    /// A field of a later release, which may say only what this one does anyway.
    pub fn only(&mut self, field: &'static str, allowed: &[Value]) {
        if let Some(value) = self.take(field)
            && !allowed.contains(&value)
        {
            let words: Vec<_> = allowed.iter().map(Value::to_string).collect();
            let suggestion = format!("leave it out, or write {}", words.join(" or "));
            self.refuse(field, Invalid::new("not-supported", "is not supported by this release", suggestion));
        }
    }

    /// A field that answers carry and that can only say what it is already.
    pub fn fixed(&mut self, field: &'static str, stored: &Value) {
        if let Some(value) = self.take(field)
            && value != *stored
        {
            self.refuse(field, Invalid::new("read-only", "cannot be changed", "leave it out"));
        }
    }

    /// Fields that answers carry and nobody can write; taken and ignored, so that an answer can be sent back changed.
    pub fn read_only(&mut self, fields: &[&'static str]) {
        for field in fields {
            self.take(field);
        }
    }

    /// How many faults were found so far.
    pub fn faults(&self) -> usize {
        self.errors.len()
    }

    /// Whether a field is there that no getter has taken yet.
    pub fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    /// All that was wrong with the fields, and those left over, for a caller that has more to judge before it answers.
    pub fn into_faults(mut self) -> Vec<FieldError> {
        let known: Vec<_> = self.known.iter().copied().collect();
        for name in std::mem::take(&mut self.fields).keys() {
            let suggestion = format!("remove it; the names here are {}", known.join(", "));
            // A name is the caller's own text and may be a misplaced value; it is shown as far as a name would go.
            let shown: String = name.chars().take(64).collect();
            self.refuse(&shown, Invalid::new("unknown-field", "is not a field of this", suggestion));
        }
        self.errors
    }

    /// What `build` makes of the fields, if nothing was wrong with any and none was left over.
    ///
    /// `build` returns `None` only by `?` on a getter's `None`, each of which has left a fault.
    pub fn finish<T>(self, build: impl FnOnce() -> Option<T>) -> Result<T, Problem> {
        let errors = self.into_faults();
        if errors.is_empty() {
            Ok(build().expect("without a fault every getter has found its value"))
        } else {
            Err(Problem::validation_failed(errors))
        }
    }
}

fn missing() -> Invalid {
    Invalid::new("missing", "is required", "send a value for it")
}

fn wrong_type(wanted: &str) -> Invalid {
    Invalid::new("wrong-type", format!("must be {wanted}"), format!("send {wanted}"))
}

/// Inclusive bounds of a number, for the getters.
pub fn within<N: PartialOrd + std::fmt::Display>(min: N, max: N) -> impl Fn(N) -> Result<N, Invalid> {
    move |number| {
        if number >= min && number <= max {
            return Ok(number);
        }
        let wanted = format!("between {min} and {max}");
        Err(Invalid::new("out-of-range", format!("must be {wanted}"), format!("send a number {wanted}")))
    }
}

/// Text without control characters, of `min` to `max` characters, for the getters.
pub fn line(min: usize, max: usize) -> impl Fn(String) -> Result<String, Invalid> {
    move |text| {
        if (min..=max).contains(&text.chars().count()) && text.chars().all(fits_a_line) {
            return Ok(text);
        }
        let wanted = format!("{min} to {max} characters without line breaks or invisible characters");
        Err(Invalid::new("format-text", format!("must have {wanted}"), format!("send {wanted}")))
    }
}

/// Values that a field can have by its JSON type alone.
pub trait FromField: Sized {
    fn from_field(value: Value) -> Result<Self, Invalid>;
}

impl FromField for Value {
    fn from_field(value: Value) -> Result<Self, Invalid> {
        Ok(value)
    }
}

impl FromField for String {
    fn from_field(value: Value) -> Result<Self, Invalid> {
        match value {
            Value::String(text) => Ok(text),
            _ => Err(wrong_type("a text")),
        }
    }
}

/// Moved, not copied, out of the body.
impl FromField for Secret<String> {
    fn from_field(value: Value) -> Result<Self, Invalid> {
        String::from_field(value).map(Secret::new)
    }
}

impl FromField for bool {
    fn from_field(value: Value) -> Result<Self, Invalid> {
        value.as_bool().ok_or_else(|| wrong_type("true or false"))
    }
}

impl FromField for f64 {
    fn from_field(value: Value) -> Result<Self, Invalid> {
        value.as_f64().filter(|n| n.is_finite()).ok_or_else(|| wrong_type("a number"))
    }
}

macro_rules! whole_numbers {
    ($($number:ty),+) => {$(
        impl FromField for $number {
            fn from_field(value: Value) -> Result<Self, Invalid> {
                let number = value.as_u64().and_then(|n| <$number>::try_from(n).ok());
                number.ok_or_else(|| wrong_type(&format!("a whole number from 0 to {}", <$number>::MAX)))
            }
        }
    )+};
}

whole_numbers!(u16, u32, u64);

/// A number written as text, as a query has it; for the getters of a query.
pub fn number_text(text: &str) -> Result<u64, Invalid> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| wrong_type("a whole number"))
}

impl FromField for BTreeMap<String, String> {
    fn from_field(value: Value) -> Result<Self, Invalid> {
        let Value::Object(fields) = value else { return Err(wrong_type("an object of texts")) };
        let pairs = fields.into_iter().map(|(name, value)| Ok((name, String::from_field(value)?)));
        pairs.collect::<Result<_, Invalid>>().map_err(|_| wrong_type("an object of texts"))
    }
}

impl FromField for BTreeMap<String, Value> {
    fn from_field(value: Value) -> Result<Self, Invalid> {
        match value {
            Value::Object(fields) => Ok(fields.into_iter().collect()),
            _ => Err(wrong_type("an object")),
        }
    }
}

impl FromField for Vec<String> {
    fn from_field(value: Value) -> Result<Self, Invalid> {
        let Value::Array(items) = value else { return Err(wrong_type("a list of texts")) };
        items.into_iter().map(String::from_field).collect::<Result<_, _>>().map_err(|_| wrong_type("a list of texts"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(result: Result<impl Sized, Problem>) -> Vec<(String, String)> {
        use axum::response::IntoResponse as _;
        let problem = result.err().expect("a refusal");
        let body = problem.into_response().into_body();
        let bytes = futures_util::FutureExt::now_or_never(axum::body::to_bytes(body, 1 << 20)).unwrap().unwrap();
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let errors = document["errors"].as_array().unwrap();
        errors.iter().map(|error| (text(&error["field"]), text(&error["code"]))).collect()
    }

    type Parts = (String, Vec<(u16, bool)>, Option<u64>);

    fn read(body: Value) -> Result<Parts, Problem> {
        let mut form = Form::of_body(body)?;
        let name = form.required("name", None, line(1, 5));
        let ports = form.objects("ports", Vec::new(), |port| {
            let host = port.required("host", None, within(1_u16, 9));
            let open = port.defaulted("open", true, Ok);
            Some((host?, open))
        });
        let limit = form.nullable("limit", Some(3), Ok);
        form.finish(|| Some((name?, ports, limit)))
    }

    #[test]
    fn defaults_stand_for_what_is_left_out() {
        let got = read(json!({"name": "a", "ports": [{"host": 1}, {"host": 2, "open": false}]})).unwrap();
        assert_eq!(got, ("a".to_owned(), vec![(1, true), (2, false)], Some(3)));
        assert_eq!(read(json!({"name": "a", "limit": null})).unwrap().2, None);
    }

    #[test]
    fn every_fault_is_told_at_its_path() {
        let check = |body: Value, expect: &[(&str, &str)]| {
            let got = faults(read(body));
            assert_eq!(got.iter().map(|(f, c)| (f.as_str(), c.as_str())).collect::<Vec<_>>(), expect);
        };
        check(json!([]), &[("", "wrong-type")]);
        check(json!({}), &[("name", "missing")]);
        check(
            json!({"name": null, "ports": [{"host": 10, "x": 1}, 7, {"open": "yes"}], "limit": -1, "tenantId": "other"}),
            &[
                ("name", "wrong-type"),
                ("ports[0].host", "out-of-range"),
                ("ports[0].x", "unknown-field"),
                ("ports[1]", "wrong-type"),
                ("ports[2].host", "missing"),
                ("ports[2].open", "wrong-type"),
                ("limit", "wrong-type"),
                ("tenantId", "unknown-field"),
            ],
        );
    }

    #[test]
    fn a_later_releases_field_may_say_only_what_holds_anyway() {
        let read = |body| {
            let mut form = Form::of_body(body)?;
            form.only("envId", &[Value::Null]);
            form.finish(|| Some(()))
        };
        assert!(read(json!({})).is_ok() && read(json!({"envId": null})).is_ok());
        assert_eq!(faults(read(json!({"envId": "env-1"}))), [("envId".to_owned(), "not-supported".to_owned())]);
    }

    #[test]
    fn a_query_names_each_parameter_once() {
        let read = |query| {
            let mut form = Form::of_query(Some(query))?;
            let limit = form.defaulted("limit", 50, |text: String| number_text(&text));
            form.finish(|| Some(limit))
        };
        assert_eq!(read("limit=7").unwrap(), 7);
        assert_eq!(read("").unwrap(), 50);
        assert_eq!(faults(read("limit=7&limit=8")), [("limit".to_owned(), "duplicate".to_owned())]);
        assert_eq!(faults(read("limit=%2B7&lmit=1")).len(), 2);
    }
}
