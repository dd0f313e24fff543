//! What an administrator may set for the tenant, and what holds until then.

use serde::{Deserialize, Serialize};

use crate::limit::{Class, Limits};

/// Most deployments of a tenant that can be let live at once: their ids share one item of the table.
pub const MAX_CAPACITY: u32 = 1_000;
/// Thirty days, in minutes.
pub const MAX_APPROVAL_TIMEOUT_MINUTES: u32 = 43_200;

/// A tenant's settings but for its secrets. What is not stored yet has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    pub limits: ClassLimits,
    pub queue: QueueSettings,
    /// How long an approval is waited for, 1 to [`MAX_APPROVAL_TIMEOUT_MINUTES`].
    pub approval_timeout_minutes: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { limits: ClassLimits::default(), queue: QueueSettings::default(), approval_timeout_minutes: 360 }
    }
}

/// Accepted requests an hour, by class. An application may have limits of its own in their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClassLimits {
    pub open: Limits,
    pub trusted: Limits,
}

impl Default for ClassLimits {
    fn default() -> Self {
        Self { open: Limits::default_of(Class::Open), trusted: Limits::default_of(Class::Trusted) }
    }
}

impl ClassLimits {
    pub fn of(&self, class: Class) -> &Limits {
        match class {
            Class::Open => &self.open,
            Class::Trusted => &self.trusted,
        }
    }
}

/// How many deployments of the tenant may be live at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueSettings {
    /// 1 to [`MAX_CAPACITY`].
    pub capacity: u32,
    /// Of these, kept free for owners and administrators; less than the capacity.
    pub reserved: u32,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self { capacity: 100, reserved: 20 }
    }
}

impl QueueSettings {
    /// The places that somebody may fill; `priority` is an owner's or an administrator's.
    pub fn places(self, priority: bool) -> u32 {
        if priority { self.capacity } else { self.capacity.saturating_sub(self.reserved) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_stored_has_its_default() {
        let settings: Settings = serde_json::from_value(json!({"queue": {"capacity": 50}})).unwrap();
        assert_eq!(settings, Settings { queue: QueueSettings { capacity: 50, reserved: 20 }, ..Settings::default() });
        let whole = serde_json::to_value(Settings::default()).unwrap();
        let expect = json!({
            "limits": {"open": {"perUser": 3, "perIp": 5, "total": 10}, "trusted": {"perUser": 60, "perIp": 120, "total": 600}},
            "queue": {"capacity": 100, "reserved": 20}, "approvalTimeoutMinutes": 360,
        });
        assert_eq!(whole, expect);
    }

    #[test]
    fn the_reserved_places_are_for_owners_and_administrators() {
        let queue = QueueSettings { capacity: 10, reserved: 4 };
        assert_eq!((queue.places(true), queue.places(false)), (10, 6));
        assert_eq!(QueueSettings { capacity: 1, reserved: 9 }.places(false), 0);
    }
}
