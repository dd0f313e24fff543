//! What a sync is to do: from what a source lists and what a group holds, an ordered list of steps.
//!
//! Every step leaves the group as something that can be planned from again: whichever of them a crash comes after, the
//! next plan leads to the same end. For this marks come first and deletions last, and what is guarded does not depend on
//! what was added meanwhile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    id::{SecretId, SecretProviderId},
    invalid::Invalid,
    provider::{OnConflict, OnRemoved},
    secret::{self, Secret},
};

#[cfg(test)]
#[path = "sync_tests.rs"]
mod tests;

/// One secret of a source.
#[derive(Debug)]
pub struct Listed {
    /// What the source knows it by, whatever it is named.
    pub remote_id: String,
    pub key: String,
    /// Where the source keeps it, for people: `/prod/DATABASE_URL`.
    pub reference: String,
    /// None: it is not text.
    pub value: Option<Secret<String>>,
}

/// One secret of the group.
#[derive(Debug)]
pub struct Known {
    pub id: SecretId,
    pub name: String,
    /// None: it cannot be read any more, so that any value is another one.
    pub value: Option<Secret<String>>,
    pub link: Link,
    /// Something refers to it.
    pub is_used: bool,
}

/// Whose a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// People write it.
    Manual,
    Synced {
        provider: SecretProviderId,
        remote_id: String,
        reference: String,
        /// Where it was listed last, as [`Rules::place`] has it.
        place: String,
        /// The source has it no more.
        stale: bool,
    },
}

/// What a run has been told.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    pub provider: SecretProviderId,
    /// Which of all folders of all sources was listed: the same text only for the same folder.
    pub place: &'a str,
    pub on_conflict: OnConflict,
    pub on_removed: OnRemoved,
    /// Somebody has looked, and wants gone what is gone.
    pub force: bool,
}

/// One write. `listed` is a place in the listing that was planned from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It stays, and is known to be gone from the source.
    MarkStale {
        secret: SecretId,
    },
    /// With `listed`, it then has the name that it has there; without, it makes room for another one.
    Rename {
        secret: SecretId,
        to: String,
        listed: Option<usize>,
    },
    /// It gets the value, or the link to what is now the same thing there.
    Update {
        secret: SecretId,
        listed: usize,
        new_value: bool,
    },
    /// It was people's, and is the source's from now on.
    Adopt {
        secret: SecretId,
        listed: usize,
    },
    Add {
        listed: usize,
    },
    Delete {
        secret: SecretId,
    },
}

/// All that is to be done, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Secrets that are as the source has them.
    pub unchanged: Vec<SecretId>,
    /// What was listed and cannot be taken as it is.
    pub problems: Vec<Trouble>,
    /// Secrets that would have been deleted, and are kept because the listing looks wrong or something refers to them.
    pub held_back: usize,
}

/// Something that was listed and cannot be taken as it is: its name, or its value. It is left as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub reference: String,
    pub why: Invalid,
}

/// A secret of the same name that the source may not overwrite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub secret: SecretId,
    pub name: String,
    pub why: &'static str,
}

/// What is to be done so that the group holds what was listed.
///
/// `listing` must be complete: what it lacks is taken as gone.
///
/// # Errors
/// With conflicts nothing is to be done at all; they are all told.
pub fn plan(listing: &[Listed], known: &[Known], rules: Rules<'_>) -> Result<Plan, Vec<Conflict>> {
    let mut problems = Vec::new();
    let entries = judge(listing, &mut problems);
    let pairs = Pairs::find(&entries, listing, known, rules)?;
    let gone: Vec<_> = known.iter().filter(|k| is_synced(k) && !pairs.kept.contains(&k.id)).collect();
    let fate = Fate::of(&gone, listing, known, rules);
    let mut plan = Plan { problems, held_back: fate.held_back, ..Plan::default() };
    plan.steps.extend(fate.stale.into_iter().map(|secret| Step::MarkStale { secret }));
    let renames = pairs.renames(&entries, known);
    let linked_anew: BTreeSet<_> = renames.iter().filter_map(final_rename).collect();
    plan.steps.extend(renames);
    let mut adds = Vec::new();
    for entry in entries.iter().filter(|entry| entry.has_value) {
        let listed = entry.listed;
        let Some(secret) = pairs.of.get(&listed).map(|at| &known[*at]) else {
            adds.extend(entry.name.map(|_| Step::Add { listed }));
            continue;
        };
        let there = &listing[listed];
        let [here, wanted] = [&secret.value, &there.value].map(|value| value.as_ref().map(Secret::expose));
        let new_value = here != wanted;
        let is_renamed = linked_anew.contains(&secret.id);
        match &secret.link {
            Link::Manual => plan.steps.push(Step::Adopt { secret: secret.id, listed }),
            Link::Synced { .. } if new_value || !is_renamed && !is_linked(&secret.link, there, rules) => {
                plan.steps.push(Step::Update { secret: secret.id, listed, new_value });
            }
            Link::Synced { .. } if !is_renamed => plan.unchanged.push(secret.id),
            Link::Synced { .. } => {}
        }
    }
    plan.steps.extend(adds);
    plan.steps.extend(fate.delete.into_iter().map(|secret| Step::Delete { secret }));
    Ok(plan)
}

fn is_synced(known: &Known) -> bool {
    matches!(known.link, Link::Synced { .. })
}

fn is_linked(link: &Link, there: &Listed, rules: Rules<'_>) -> bool {
    match link {
        Link::Manual => false,
        Link::Synced { remote_id, reference, stale, .. } => {
            is_from_here(link, rules) && *remote_id == there.remote_id && *reference == there.reference && !stale
        }
    }
}

/// Whether it was listed before where the listing is from. Only such a one can have gone from there.
fn is_from_here(link: &Link, rules: Rules<'_>) -> bool {
    match link {
        Link::Manual => false,
        Link::Synced { provider, place, .. } => *provider == rules.provider && place == rules.place,
    }
}

fn final_rename(step: &Step) -> Option<SecretId> {
    match step {
        Step::Rename { secret, listed: Some(_), .. } => Some(*secret),
        Step::Rename { .. }
        | Step::MarkStale { .. }
        | Step::Update { .. }
        | Step::Adopt { .. }
        | Step::Add { .. }
        | Step::Delete { .. } => None,
    }
}

/// What was listed, once each, with what of it can be taken.
struct Entry<'a> {
    listed: usize,
    /// None: it cannot be the name of a secret, or is another one's as well.
    name: Option<&'a str>,
    has_value: bool,
}

fn judge<'a>(listing: &'a [Listed], problems: &mut Vec<Trouble>) -> Vec<Entry<'a>> {
    let mut seen = BTreeSet::new();
    // A source that changes between two pages may list one thing on both.
    let once: Vec<_> = listing.iter().enumerate().filter(|(_, there)| seen.insert(&there.remote_id)).collect();
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, there) in &once {
        *times.entry(&there.key).or_default() += 1;
    }
    let mut judged = Vec::new();
    for (listed, there) in once {
        let mut fine = |verdict: Result<(), Invalid>| match verdict {
            Ok(()) => true,
            Err(why) => {
                problems.push(Trouble { reference: there.reference.clone(), why });
                false
            }
        };
        let has_name = fine(secret::check_name(&there.key))
            && fine(if times[there.key.as_str()] == 1 { Ok(()) } else { Err(listed_twice()) });
        let has_value = fine(there.value.as_ref().ok_or_else(not_text).and_then(secret::check_value));
        judged.push(Entry { listed, name: has_name.then_some(there.key.as_str()), has_value });
    }
    judged
}

fn not_text() -> Invalid {
    Invalid::new("not-text", "is not text", "store it as text at the source, for example in base64")
}

fn listed_twice() -> Invalid {
    Invalid::new(
        "duplicate",
        "is the name of two secrets in the same folder",
        "rename one of them at the source, or put it into a folder of its own",
    )
}

/// Which secret of the group is which entry.
struct Pairs {
    /// Places in `known` by places in the listing.
    of: BTreeMap<usize, usize>,
    /// Those that are still there, whether or not they can be updated.
    kept: BTreeSet<SecretId>,
}

impl Pairs {
    /// By what the source knows it by; else by name, if that is free to be taken.
    fn find(
        entries: &[Entry<'_>],
        listing: &[Listed],
        known: &[Known],
        rules: Rules<'_>,
    ) -> Result<Self, Vec<Conflict>> {
        let by_remote_id: BTreeMap<&str, usize> = known
            .iter()
            .enumerate()
            .rev()
            .filter_map(|(at, known)| match &known.link {
                Link::Synced { provider, remote_id, .. } if *provider == rules.provider => {
                    Some((remote_id.as_str(), at))
                }
                Link::Synced { .. } | Link::Manual => None,
            })
            .collect();
        let by_name: BTreeMap<&str, usize> = known.iter().enumerate().map(|(at, k)| (k.name.as_str(), at)).collect();
        let mut of = BTreeMap::new();
        let mut kept = BTreeSet::new();
        let mut strangers = Vec::new();
        let mut conflicts = Vec::new();
        let mut refuse = |known: &Known, why| {
            conflicts.push(Conflict { secret: known.id, name: known.name.clone(), why });
        };
        for entry in entries {
            let Some(at) = by_remote_id.get(listing[entry.listed].remote_id.as_str()) else {
                strangers.push(entry);
                continue;
            };
            of.insert(entry.listed, *at);
            kept.insert(known[*at].id);
            let holder = entry.name.and_then(|name| by_name.get(name)).map(|at| &known[*at]);
            if let Some(holder) = holder.filter(|holder| !is_synced(holder)) {
                refuse(
                    holder,
                    "people wrote it, and what has its name at the source now is another secret here already",
                );
            }
        }
        for entry in strangers {
            let holder = entry.name.and_then(|name| by_name.get(name)).filter(|at| !kept.contains(&known[**at].id));
            let Some(at) = holder else { continue };
            match (&known[*at].link, rules.on_conflict) {
                (Link::Manual, OnConflict::Fail) => refuse(&known[*at], "people wrote it"),
                (Link::Manual, OnConflict::Adopt) if entry.has_value => {
                    of.insert(entry.listed, *at);
                }
                (Link::Manual, OnConflict::Adopt) => {}
                // Deleted and made again there, or another source's before: what refers to it goes on doing so.
                (Link::Synced { .. }, _) => {
                    of.insert(entry.listed, *at);
                    kept.insert(known[*at].id);
                }
            }
        }
        if conflicts.is_empty() { Ok(Self { of, kept }) } else { Err(conflicts) }
    }

    /// Names as they are to be, in an order in which each is free when it is given. Who only makes room goes aside.
    fn renames(&self, entries: &[Entry<'_>], known: &[Known]) -> Vec<Step> {
        let mut targets: BTreeMap<SecretId, (String, Option<usize>)> = BTreeMap::new();
        let mut wanted: BTreeMap<&str, Option<SecretId>> = BTreeMap::new();
        for entry in entries {
            let Some(name) = entry.name else { continue };
            let secret = self.of.get(&entry.listed).map(|at| &known[*at]);
            match secret {
                Some(secret) => {
                    wanted.insert(name, Some(secret.id));
                    if secret.name != name {
                        targets.insert(secret.id, (name.to_owned(), Some(entry.listed)));
                    }
                }
                None if entry.has_value => {
                    wanted.insert(name, None);
                }
                None => {}
            }
        }
        let names = Names { held: known.iter().map(|k| (k.name.clone(), k.id)).collect() };
        for secret in known.iter().filter(|secret| is_synced(secret)) {
            if !targets.contains_key(&secret.id)
                && wanted.get(secret.name.as_str()).is_some_and(|by| *by != Some(secret.id))
            {
                let aside = names.free(&secret.name, "former", secret.id, &wanted);
                targets.insert(secret.id, (aside, None));
            }
        }
        order(targets, names, &wanted)
    }
}

struct Names {
    held: BTreeMap<String, SecretId>,
}

impl Names {
    /// A name that nobody has or is to have, and that says whose it is.
    fn free(&self, name: &str, why: &str, of: SecretId, wanted: &BTreeMap<&str, Option<SecretId>>) -> String {
        let suffix = format!(".{why}-{of}");
        // So short that it is a name with two suffixes of the longest kind.
        let short: String = name.chars().take(60).collect();
        let mut free = format!("{short}{suffix}");
        while self.held.contains_key(&free) || wanted.contains_key(free.as_str()) {
            free.push('_');
        }
        free
    }
}

/// Whoever's new name is free goes first, which frees another one's. What is left then goes in circles: one of each steps
/// out of the way.
fn order(
    mut targets: BTreeMap<SecretId, (String, Option<usize>)>,
    mut names: Names,
    wanted: &BTreeMap<&str, Option<SecretId>>,
) -> Vec<Step> {
    let by_target: BTreeMap<String, SecretId> = targets.iter().map(|(id, (to, _))| (to.clone(), *id)).collect();
    let mut now: BTreeMap<SecretId, String> = names.held.iter().map(|(name, id)| (*id, name.clone())).collect();
    let mut steps = Vec::new();
    let mut ready: VecDeque<SecretId> =
        targets.iter().filter(|(_, (to, _))| !names.held.contains_key(to)).map(|(id, _)| *id).collect();
    loop {
        while let Some(secret) = ready.pop_front() {
            let Some((to, listed)) = targets.remove(&secret) else { continue };
            if let Some(freed) = now.insert(secret, to.clone()) {
                names.held.remove(&freed);
                ready.extend(by_target.get(&freed));
            }
            names.held.insert(to.clone(), secret);
            steps.push(Step::Rename { secret, to, listed });
        }
        let Some((secret, _)) = targets.first_key_value() else { return steps };
        let secret = *secret;
        let Some(from) = now.get(&secret).cloned() else { return steps };
        let to = names.free(&from, "moving", secret, wanted);
        names.held.remove(&from);
        names.held.insert(to.clone(), secret);
        now.insert(secret, to.clone());
        steps.push(Step::Rename { secret, to, listed: None });
        ready.extend(by_target.get(&from));
    }
}

/// What becomes of secrets that the source has no more.
struct Fate {
    stale: Vec<SecretId>,
    delete: Vec<SecretId>,
    held_back: usize,
}

impl Fate {
    /// Deleted is only what nothing refers to, and only what has just gone from where it was: what was kept once stays until
    /// somebody forces it, or the guard would be passed by waiting, and of what was listed elsewhere nobody knows that it has
    /// gone there. And nothing is deleted if the list is empty or lacks more than half of what the group has from there,
    /// because a wrong folder or a lost permission looks like that.
    fn of(gone: &[&Known], listing: &[Listed], known: &[Known], rules: Rules<'_>) -> Self {
        let lost = gone.iter().filter(|known| is_from_here(&known.link, rules)).count();
        let had = known.iter().filter(|known| is_from_here(&known.link, rules)).count();
        let looks_right = !listing.is_empty() && lost * 2 <= had;
        let mut fate = Self { stale: Vec::new(), delete: Vec::new(), held_back: 0 };
        for secret in gone {
            let was_stale = matches!(secret.link, Link::Synced { stale: true, .. });
            let has_just_gone = is_from_here(&secret.link, rules) && !was_stale;
            let may_go = !secret.is_used && (rules.force || looks_right && has_just_gone);
            match rules.on_removed {
                OnRemoved::Delete if may_go => fate.delete.push(secret.id),
                OnRemoved::Delete | OnRemoved::Retain => {
                    if rules.on_removed == OnRemoved::Delete {
                        fate.held_back += 1;
                    }
                    if !was_stale {
                        fate.stale.push(secret.id);
                    }
                }
            }
        }
        fate
    }
}
