//! The types that a parameter may have.

use serde::{Deserialize, Serialize};

use crate::invalid::Invalid;

/// What a parameter's values are. The names are those of the API: `public_key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParameterType {
    /// Up to 4,096 characters unless declared; control characters only where declared, NUL never.
    String,
    /// A finite JSON number, kept as written.
    Number,
    /// `true` or `false`.
    Boolean,
    /// At most 64 KiB and 32 levels deep, kept as written.
    Json,
    Email,
    Ipv4,
    /// IPv4, or IPv6 without a zone.
    Ip,
    /// A domain name below a public suffix.
    Domain,
    /// An address or a domain name, with or without a port.
    Host,
    /// `http` or `https`.
    Url,
    /// RSA or Ed25519.
    PublicKey,
}

impl ParameterType {
    /// All of them, in the order in which they are documented.
    pub const ALL: [Self; 11] = [
        Self::String,
        Self::Number,
        Self::Boolean,
        Self::Json,
        Self::Email,
        Self::Ipv4,
        Self::Ip,
        Self::Domain,
        Self::Host,
        Self::Url,
        Self::PublicKey,
    ];

    pub fn parse(name: &str) -> Result<Self, Invalid> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| {
            Invalid::new("unknown-value", "is not a type that this release has", format!("use one of {}", names()))
        })
    }

    /// As the API and the store write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Json => "json",
            Self::Email => "email",
            Self::Ipv4 => "ipv4",
            Self::Ip => "ip",
            Self::Domain => "domain",
            Self::Host => "host",
            Self::Url => "url",
            Self::PublicKey => "public_key",
        }
    }

    /// Whether its values lead somewhere, so that `approval: public-address` means something.
    pub fn carries_address(self) -> bool {
        match self {
            Self::Ipv4 | Self::Ip | Self::Domain | Self::Host | Self::Url => true,
            Self::String | Self::Number | Self::Boolean | Self::Json | Self::Email | Self::PublicKey => false,
        }
    }
}

/// What a value that passed stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It leads nowhere.
    Plain,
    /// An address of a private network, bare or in a host or URL.
    PrivateAddress,
    /// An address of the public internet, bare or in a host or URL.
    PublicAddress,
    /// A domain name, bare or in a host or URL. It counts as public: names are never resolved.
    DomainName,
}
