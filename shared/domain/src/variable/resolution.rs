//! What a container gets of the variables of all layers.

use std::collections::BTreeMap;

use super::{
    MAX_TOTAL_BYTES, MAX_VARIABLES, SecretReference, ValueType, VariableKey, check_value,
    order::groups,
    template::{Piece, Reference, Space, Template},
};
use crate::{
    invalid::{FieldError, Invalid},
    parameter::Faults,
    secret::Secret,
};

/// Which layer a value came from, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    Request,
    Application,
    /// The one that the application is pinned to, or else the project's active one.
    Environment,
    Project,
    Global,
    /// A parameter's default.
    Default,
}

impl Origin {
    pub fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Application => "application",
            Self::Environment => "environment",
            Self::Project => "project",
            Self::Global => "global",
            Self::Default => "default",
        }
    }
}

/// A value of one layer, as it was written.
#[derive(Debug)]
pub struct Layered {
    pub origin: Origin,
    pub key: VariableKey,
    pub value: Written,
    pub value_type: ValueType,
    pub is_secret: bool,
}

/// What a layer says of a key.
#[derive(Debug)]
pub enum Written {
    /// Taken as it is, whatever braces it has: whoever sends a request must not pull other values to where they can be seen.
    Text(Secret<String>),
    /// Of a stored variable; a sealed one that was opened, too. See [`Template`].
    Template(Secret<String>),
    /// What it names is taken as it is, too.
    Reference(SecretReference),
}

impl Written {
    /// What it refers to in the environment alone. A text that is no template refers to nothing.
    pub fn environment_keys(&self) -> Vec<VariableKey> {
        let Self::Template(text) = self else { return Vec::new() };
        let Ok(template) = Template::parse(text.expose()) else { return Vec::new() };
        let of_environment = template.references().filter(|reference| reference.space == Space::Environment);
        of_environment.map(|reference| reference.key.clone()).collect()
    }
}

/// What became of the variables: those that a container gets, by key, and all that is wrong with them.
#[derive(Debug)]
pub struct Resolution {
    pub entries: Vec<Entry>,
    pub faults: Vec<FieldError>,
}

/// The strongest layer's value of a key.
#[derive(Debug)]
pub struct Entry {
    pub key: VariableKey,
    pub origin: Origin,
    /// To be redacted wherever it, or the container's output, is shown.
    pub is_secret: bool,
    /// Variables that its text refers to; of a secret text those alone that exist.
    pub references: Vec<Reference>,
    /// None for one that is at fault, or that refers to such a one.
    pub value: Option<Secret<String>>,
}

/// A variable as a container gets it.
#[derive(Debug)]
pub struct Resolved {
    pub key: VariableKey,
    pub value: Secret<String>,
    /// To be redacted wherever the container's output is shown.
    pub is_secret: bool,
}

impl Resolution {
    /// # Errors
    /// All faults, if there are any.
    pub fn complete(self) -> Result<Vec<Resolved>, Vec<FieldError>> {
        if !self.faults.is_empty() {
            return Err(self.faults);
        }
        let resolved = |Entry { key, is_secret, value, .. }| Some(Resolved { key, value: value?, is_secret });
        Ok(self.entries.into_iter().filter_map(resolved).collect())
    }
}

/// The strongest layer's value of each key, with every reference replaced by what it stands for, and `secret` for what
/// secrets are.
///
/// What nobody refers to and a stronger layer hides does not matter, however wrong it is. Names and circles that cannot be
/// resolved, values that are not of their type, and the limits on count and size are all told at once, and never with a value.
/// Values are made in order of what they refer to, and only until they would take more than [`MAX_TOTAL_BYTES`] together
/// (those of the environment that are only referred to among them), so that doubling again and again costs nobody anything.
pub fn resolve<'s>(layers: &[Layered], secret: impl Fn(&SecretReference) -> Option<&'s Secret<String>>) -> Resolution {
    let names = Names::of(layers);
    let nodes = names.reach(layers);
    let targets: Vec<Vec<usize>> = nodes.iter().map(Node::targets).collect();
    let mut resolver = Resolver {
        layers,
        names: &names,
        nodes: &nodes,
        values: layers.iter().map(|_| None).collect(),
        is_secret: layers.iter().map(|layer| layer.is_secret).collect(),
        bytes: 0,
        is_oversize: names.merged.len() > MAX_VARIABLES,
        faults: Vec::new(),
    };
    for group in groups(&targets, names.merged.values().copied()) {
        resolver.resolve_group(&group, &targets, &secret);
    }
    resolver.finish()
}

/// The secrets whose values decide whether something is at fault: those in texts of a type of their own. Of all others it is
/// enough to know that they are there.
pub fn judged_by_value(layers: &[Layered]) -> Vec<&SecretReference> {
    let names = Names::of(layers);
    let nodes = names.reach(layers);
    let is_judged = |index: &usize| match layers[*index].value_type {
        ValueType::Number | ValueType::Boolean | ValueType::Json => true,
        ValueType::String | ValueType::SecretRef => false,
    };
    let mut wanted: Vec<usize> = (0..nodes.len()).filter(is_judged).flat_map(|index| nodes[index].targets()).collect();
    let mut is_seen = vec![false; nodes.len()];
    let mut judged = Vec::new();
    while let Some(index) = wanted.pop() {
        if !std::mem::replace(&mut is_seen[index], true) {
            wanted.extend(nodes[index].targets());
            if let Written::Reference(reference) = &layers[index].value {
                judged.push(reference);
            }
        }
    }
    judged
}

/// What the names stand for: indexes of layers' entries.
struct Names<'a> {
    merged: BTreeMap<&'a VariableKey, usize>,
    environment: BTreeMap<&'a VariableKey, usize>,
}

/// An entry as far as it has to be known.
enum Node<'a> {
    /// Nothing leads to it.
    Unneeded,
    Plain,
    /// With the entry that each of its references stands for.
    Template(Template<'a>, Vec<Option<usize>>),
    Malformed(Invalid),
}

impl Node<'_> {
    fn targets(&self) -> Vec<usize> {
        match self {
            Self::Unneeded | Self::Plain | Self::Malformed(_) => Vec::new(),
            Self::Template(_, found) => found.iter().flatten().copied().collect(),
        }
    }
}

impl<'a> Names<'a> {
    fn of(layers: &'a [Layered]) -> Self {
        let (mut merged, mut environment) = (BTreeMap::new(), BTreeMap::new());
        for (index, layer) in layers.iter().enumerate() {
            let strongest = merged.entry(&layer.key).or_insert(index);
            if layer.origin < layers[*strongest].origin {
                *strongest = index;
            }
            if layer.origin == Origin::Environment {
                environment.insert(&layer.key, index);
            }
        }
        Self { merged, environment }
    }

    fn find(&self, reference: &Reference) -> Option<usize> {
        let names = match reference.space {
            Space::Merged => &self.merged,
            Space::Environment => &self.environment,
        };
        names.get(&reference.key).copied()
    }

    /// What a container gets, and all that it refers to.
    fn reach(&self, layers: &'a [Layered]) -> Vec<Node<'a>> {
        let mut nodes: Vec<Node<'a>> = layers.iter().map(|_| Node::Unneeded).collect();
        let mut wanted: Vec<usize> = self.merged.values().copied().collect();
        while let Some(index) = wanted.pop() {
            if matches!(nodes[index], Node::Unneeded) {
                nodes[index] = self.node(&layers[index]);
                wanted.extend(nodes[index].targets());
            }
        }
        nodes
    }

    fn node(&self, layer: &'a Layered) -> Node<'a> {
        let Written::Template(text) = &layer.value else { return Node::Plain };
        match Template::parse(unescaped(text.expose())) {
            Ok(template) => {
                let found = template.references().map(|reference| self.find(reference)).collect();
                Node::Template(template, found)
            }
            Err(invalid) => Node::Malformed(invalid),
        }
    }
}

struct Resolver<'a> {
    layers: &'a [Layered],
    names: &'a Names<'a>,
    nodes: &'a [Node<'a>],
    values: Vec<Option<Secret<String>>>,
    /// Of each entry, as far as it is resolved: itself, or anything in it.
    is_secret: Vec<bool>,
    /// Of all values that were made.
    bytes: usize,
    is_oversize: bool,
    faults: Vec<FieldError>,
}

impl Resolver<'_> {
    fn resolve_group<'s>(
        &mut self,
        group: &[usize],
        targets: &[Vec<usize>],
        secret: &impl Fn(&SecretReference) -> Option<&'s Secret<String>>,
    ) {
        let refers_to_itself = |index: &usize| targets[*index].contains(index);
        if group.len() == 1 && !group.iter().any(refers_to_itself) {
            for index in group {
                self.resolve_one(*index, secret);
            }
            return;
        }
        let mut members: Vec<String> = group.iter().map(|index| self.name(*index)).collect();
        members.sort();
        let shown = members.iter().take(MAX_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if members.len() > MAX_SHOWN { " and others" } else { "" };
        let circle = if members.len() == 1 {
            "refers to itself".to_owned()
        } else {
            format!("is in a circle of variables that refer to each other: {shown}{more}")
        };
        for index in group {
            self.refuse(
                *index,
                Invalid::new("circular-variable", circle.clone(), "write one of them without the other"),
            );
        }
        // One secret in a circle is in all of them.
        let taints = |index: &usize| self.is_secret[*index] || targets[*index].iter().any(|t| self.is_secret[*t]);
        if group.iter().any(taints) {
            for index in group {
                self.is_secret[*index] = true;
            }
        }
    }

    fn resolve_one<'s>(&mut self, index: usize, secret: &impl Fn(&SecretReference) -> Option<&'s Secret<String>>) {
        let (nodes, layers) = (self.nodes, self.layers);
        let layer = &layers[index];
        match (&layer.value, &nodes[index]) {
            (Written::Text(text), _) => self.make(index, unescaped(text.expose()).len(), [unescaped(text.expose())]),
            (Written::Reference(reference), _) => {
                self.is_secret[index] = true;
                match secret(reference) {
                    Some(value) => self.make(index, value.expose().len(), [value.expose().as_str()]),
                    None => self.refuse(index, unknown_secret()),
                }
            }
            (Written::Template(_), Node::Malformed(invalid)) => self.refuse(index, invalid.clone()),
            (Written::Template(_), Node::Template(template, found)) => self.render(index, template, found),
            // Groups hold only what was looked at.
            (Written::Template(_), Node::Plain | Node::Unneeded) => {}
        }
    }

    fn render(&mut self, index: usize, template: &Template<'_>, found: &[Option<usize>]) {
        // Before anything is told of it.
        self.is_secret[index] |= found.iter().flatten().any(|target| self.is_secret[*target]);
        let mut unknown: Vec<&Reference> =
            template.references().zip(found).filter(|(_, found)| found.is_none()).map(|(r, _)| r).collect();
        unknown.sort();
        unknown.dedup();
        for reference in &unknown {
            self.refuse(index, unknown_variable(reference, self.layers[index].is_secret));
        }
        let mut found = found.iter();
        let values = std::mem::take(&mut self.values);
        let pieces: Option<Vec<&str>> = template
            .pieces()
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) => Some(*text),
                Piece::Reference(_) => {
                    let target = found.next().copied().flatten()?;
                    values[target].as_ref().map(|value| value.expose().as_str())
                }
            })
            .collect();
        let length = pieces.as_ref().map(|pieces| pieces.iter().map(|piece| piece.len()).sum());
        let made = pieces.zip(length).and_then(|(pieces, length)| self.build(index, length, pieces));
        self.values = values;
        let Some(made) = made else { return };
        match check_value(self.layers[index].value_type, made.expose()) {
            Ok(()) => self.values[index] = Some(made),
            Err(invalid) => self.refuse(index, invalid),
        }
    }

    fn make<'p>(&mut self, index: usize, length: usize, pieces: impl IntoIterator<Item = &'p str>) {
        self.values[index] = self.build(index, length, pieces);
    }

    /// None if there is no room left for it. The length is known before, so that nothing is made in vain, nor copied.
    fn build<'p>(
        &mut self,
        index: usize,
        length: usize,
        pieces: impl IntoIterator<Item = &'p str>,
    ) -> Option<Secret<String>> {
        let bytes = self.bytes.saturating_add(self.layers[index].key.as_str().len()).saturating_add(length);
        if bytes > MAX_TOTAL_BYTES {
            self.is_oversize = true;
            return None;
        }
        self.bytes = bytes;
        let mut value = String::with_capacity(length);
        value.extend(pieces);
        Some(Secret::new(value))
    }

    /// As a reference would name it.
    fn name(&self, index: usize) -> String {
        let key = &self.layers[index].key;
        let space = if self.names.merged.get(key) == Some(&index) { Space::Merged } else { Space::Environment };
        Reference { space, key: key.clone() }.to_string()
    }

    fn refuse(&mut self, index: usize, invalid: Invalid) {
        self.faults.push(invalid.at(format!("variables.{}", self.name(index))));
    }

    fn finish(mut self) -> Resolution {
        self.faults.sort_by(|a, b| {
            (&a.field, a.invalid.code, &a.invalid.message).cmp(&(&b.field, b.invalid.code, &b.invalid.message))
        });
        if self.is_oversize {
            self.faults.push(oversize(self.names.merged.len()));
        }
        let mut faults = Faults::default();
        self.faults.drain(..).for_each(|fault| faults.add(|| fault));
        let entries = self.names.merged.iter().map(|(key, &index)| Entry {
            key: (*key).clone(),
            origin: self.layers[index].origin,
            is_secret: self.is_secret[index],
            references: references(&self.nodes[index], self.layers[index].is_secret),
            value: self.values[index].take(),
        });
        Resolution { entries: entries.collect(), faults: faults.told() }
    }
}

/// So many names of a circle are told.
const MAX_SHOWN: usize = 10;

/// By name, each once.
fn references(node: &Node<'_>, is_secret: bool) -> Vec<Reference> {
    let Node::Template(template, found) = node else { return Vec::new() };
    let shown = template.references().zip(found).filter(|(_, found)| !is_secret || found.is_some());
    let mut references: Vec<_> = shown.map(|(reference, _)| reference.clone()).collect();
    references.sort();
    references.dedup();
    references
}

/// A name that nothing has is part of the written value, and of a secret one it is not told.
fn unknown_variable(reference: &Reference, is_secret: bool) -> Invalid {
    let (kind, suggestion) = match reference.space {
        Space::Merged => ("a variable", "create the variable or change the reference; {{{{ stands for two braces"),
        Space::Environment => (
            "a variable of the environment",
            "create it in the application's environment, activate the one that has it, or change the reference",
        ),
    };
    let message = if is_secret {
        format!("refers to {kind} that does not exist")
    } else {
        format!("refers to {kind} that does not exist: {reference}")
    };
    Invalid::new("unknown-variable", message, suggestion)
}

fn unknown_secret() -> Invalid {
    Invalid::new("unknown-secret", "refers to a secret that does not exist", "create the secret or change the variable")
}

fn oversize(count: usize) -> FieldError {
    let message = format!("{count} variables, or more than {MAX_TOTAL_BYTES} bytes of names and values");
    let suggestion = format!("stay within {MAX_VARIABLES} variables and {MAX_TOTAL_BYTES} bytes");
    Invalid::new("too-many-variables", message, suggestion).at("variables")
}

/// `@@secret:` stands for a plain value that begins with `@secret:`.
fn unescaped(text: &str) -> &str {
    match text.strip_prefix('@') {
        Some(rest) if rest.starts_with("@secret:") => rest,
        _ => text,
    }
}

#[cfg(test)]
mod tests;
