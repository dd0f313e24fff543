//! Declarations that are ready to use.

use super::{ApprovalRule, Parameter, ParameterType};
use crate::variable::VariableKey;

/// The sets that there are.
pub const NAMES: &[&str] = &["rustdesk-client"];

/// The declarations of a set; none if there is no such set.
///
/// `rustdesk-client` is what a build of the `RustDesk` client is made from (seed `003`, "敏感信息清理"): both servers need
/// the owner's decision where they are not in a private network.
pub fn set(name: &str) -> Option<Vec<Parameter>> {
    match name {
        "rustdesk-client" => Some(rustdesk_client()),
        _ => None,
    }
}

fn rustdesk_client() -> Vec<Parameter> {
    let required = |name: &str, value_type| {
        let name = VariableKey::parse(name).expect("the names below are letters and '_'");
        Parameter { required: true, ..Parameter::new(name, value_type) }
    };
    let server =
        |name, value_type| Parameter { approval: Some(ApprovalRule::PublicAddress), ..required(name, value_type) };
    vec![
        // Names the build, which the request's version does already where there is no tag.
        Parameter { required: false, ..required("tag", ParameterType::String) },
        required("email", ParameterType::Email),
        Parameter { sensitive: true, ..required("super_password", ParameterType::String) },
        server("rendezvous_server", ParameterType::Host),
        server("api_server", ParameterType::Url),
        required("rs_pub_key", ParameterType::PublicKey),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_can_be_registered() {
        for name in NAMES {
            for parameter in set(name).unwrap() {
                assert_eq!(parameter.faults(), [], "{name}: {}", parameter.name);
            }
        }
        assert_eq!(set("nosuchset"), None);
    }

    #[test]
    fn the_servers_of_a_rustdesk_client_need_a_decision_where_they_are_public() {
        let set = set("rustdesk-client").unwrap();
        let with = |rule: fn(&Parameter) -> bool| -> Vec<_> {
            set.iter().filter(|p| rule(p)).map(|p| p.name.as_str()).collect()
        };
        assert_eq!(with(|p| p.approval == Some(ApprovalRule::PublicAddress)), ["rendezvous_server", "api_server"]);
        assert_eq!(with(|p| p.sensitive), ["super_password"]);
        assert_eq!(with(|p| !p.required), ["tag"]);
    }
}
