//! Fields that are written and never read back.

use tidegate_domain::{
    invalid::Invalid,
    secret::{MASK, Secret},
};
use tidegate_web::form::Form;

/// Largest secret value, in bytes: several of them fit into one item of the table.
const MAX_SECRET_BYTES: usize = 64 * 1024;

/// What a form says of a secret field.
pub(crate) enum SecretField {
    /// A value to be sealed.
    New(Secret<String>),
    /// Left out, or the mask over a value that is there: it stays.
    Keep,
}

/// `stored`: whether there is a value that the mask can stand for. Without one the field is required.
pub(crate) fn secret(form: &mut Form, field: &'static str, stored: bool) -> Option<SecretField> {
    form.required(field, stored.then_some(SecretField::Keep), |value: Secret<String>| {
        if value.expose() == MASK {
            return if stored { Ok(SecretField::Keep) } else { Err(mask()) };
        }
        check(&value)?;
        Ok(SecretField::New(value))
    })
}

/// As [`secret`], of a field that may be `null`, which means none. `further` judges a new value.
pub(crate) fn optional(
    form: &mut Form,
    field: &'static str,
    stored: bool,
    further: impl FnOnce(&Secret<String>) -> Result<(), Invalid>,
) -> Option<SecretField> {
    form.nullable(field, stored.then_some(SecretField::Keep), |value: Secret<String>| {
        if value.expose() == MASK {
            return if stored { Ok(SecretField::Keep) } else { Err(mask()) };
        }
        check(&value)?;
        further(&value)?;
        Ok(SecretField::New(value))
    })
}

fn mask() -> Invalid {
    Invalid::new("mask", "is the mask, which stands for no value here", "send the value itself")
}

fn check(value: &Secret<String>) -> Result<(), Invalid> {
    if value.expose().len() > MAX_SECRET_BYTES {
        return Err(Invalid::new("too-long", "has more than 64 KiB", "store a reference to it in its place"));
    }
    tidegate_domain::variable::check_value(tidegate_domain::variable::ValueType::String, value.expose())
}
