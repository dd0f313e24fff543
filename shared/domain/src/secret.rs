//! Values that must not be seen: never printed, never compared, never copied by accident.

use std::fmt;

use zeroize::Zeroize;

use crate::{invalid::Invalid, text::fits_a_line};

/// Largest value of a secret: several of them fit into one item of the table.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
const MAX_NAME_CHARS: usize = 128;

/// What every answer, log line and form shows in place of a secret value.
pub const MASK: &str = "***************";

/// A value that is wiped when dropped and that shows itself only through [`Secret::expose`].
///
/// It has no `Display`, `Clone`, `PartialEq` or `Serialize` on purpose. A field that goes into a sealed document names
/// [`in_sealed_form`] itself, so that every such place can be found by searching for it.
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The only way to the value.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl Secret<String> {
    /// A second holder of the same value; named, because each one lengthens the time the value stays in memory.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A name that can be written in `@secret:group/NAME`: 1 to 128 characters of one line, see [`fits_a_line`], no slash.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), Invalid> {
    if !(1..=MAX_NAME_CHARS).contains(&name.chars().count()) || !name.chars().all(fits_a_line) {
        let wanted = "1 to 128 characters without line breaks or invisible characters";
        return Err(Invalid::new("format-text", format!("must have {wanted}"), format!("send {wanted}")));
    }
    if name.contains('/') || name.trim() != name {
        return Err(Invalid::new(
            "format-name",
            "contains a slash, or begins or ends with a space",
            "use another character in its place",
        ));
    }
    Ok(())
}

/// Of the mask where there is nothing that it could stand for.
pub fn mask() -> Invalid {
    Invalid::new("mask", "is the mask, which stands for no value here", "send the value itself")
}

/// # Errors
/// A value that is too long, that no container could be given, or that nobody could tell from the mask over one.
pub fn check_value(value: &Secret<String>) -> Result<(), Invalid> {
    if value.expose() == MASK {
        return Err(mask());
    }
    if value.expose().len() > MAX_VALUE_BYTES {
        return Err(Invalid::new("too-long", "has more than 64 KiB", "store a reference to it in its place"));
    }
    crate::variable::check_value(crate::variable::ValueType::String, value.expose())
}

/// `#[serde(with = "secret::in_sealed_form")]`: for fields of documents that exist in serialised form only inside an
/// encryption.
pub mod in_sealed_form {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Secret;

    pub fn serialize<S: Serializer>(secret: &Secret<String>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret<String>, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print_itself() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "*** Some(***)");
    }
}
