//! Fields that are written and never read back.

use tidegate_domain::{
    invalid::Invalid,
    secret::{MASK, Secret, check_value, mask},
};
use tidegate_web::form::Form;

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
        check_value(&value)?;
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
        check_value(&value)?;
        further(&value)?;
        Ok(SecretField::New(value))
    })
}
