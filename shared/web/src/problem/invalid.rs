//! Faults of fields that are found where they are stored.

use tidegate_domain::{
    invalid::Invalid,
    variable::{MAX_TOTAL_BYTES, MAX_VARIABLES},
};

pub(super) fn too_many_variables() -> Invalid {
    Invalid::new(
        "too-many-variables",
        "would be more than a deployment may have",
        format!("stay within {MAX_VARIABLES} variables and {MAX_TOTAL_BYTES} bytes of names and values"),
    )
}

/// Said of a field that names something which does not exist.
pub fn reference_missing() -> Invalid {
    Invalid::new("unknown-reference", "refers to something that does not exist", "create it first, or use another id")
}
