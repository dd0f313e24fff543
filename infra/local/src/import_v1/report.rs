//! What a run says. Names, codes and advice; never a value.

use std::io::{self, Write};

use tidegate_domain::{
    import_v1::{Plan, PlannedValue, Step},
    invalid::FieldError,
};

use super::perform::First;

pub(super) fn faults(out: &mut impl Write, faults: &[FieldError]) -> io::Result<()> {
    writeln!(out, "Nothing was done. To be mended first:")?;
    said(out, "!", faults)
}

fn said(out: &mut impl Write, sign: &str, errors: &[FieldError]) -> io::Result<()> {
    for FieldError { field, invalid } in errors {
        let at = if field.is_empty() { "the file" } else { field };
        writeln!(out, "  {sign} {at} [{}] {invalid}", invalid.code)?;
    }
    Ok(())
}

pub(super) fn planned(out: &mut impl Write, plan: &Plan, dry_run: bool) -> io::Result<()> {
    if dry_run {
        writeln!(out, "Dry run: nothing is changed.")?;
    }
    if !plan.present.is_empty() {
        writeln!(out, "There already, and left as it is (values of secrets cannot be compared):")?;
        for label in &plan.present {
            writeln!(out, "  = {label}")?;
        }
    }
    if !plan.left_out.is_empty() {
        writeln!(out, "Not imported:")?;
        for left in &plan.left_out {
            writeln!(out, "  - {}: {}", left.what, left.why)?;
        }
    }
    if !plan.questions.is_empty() {
        writeln!(out, "Needs a decision (--decisions):")?;
        said(out, "?", &plan.questions)?;
    }
    if plan.steps.is_empty() {
        return writeln!(out, "Nothing is to be created.");
    }
    writeln!(out, "{}", if dry_run { "Would create:" } else { "Creates:" })?;
    let mark = if dry_run { "+" } else { "." };
    for step in &plan.steps {
        writeln!(out, "  {mark} {}{}", step.label(), remarks(step))?;
    }
    if !dry_run {
        writeln!(out, "Created:")?;
    }
    Ok(())
}

/// What one would want to know before it is done.
fn remarks(step: &Step) -> String {
    match step {
        Step::Application { image, ports, hosts, .. } => {
            let ports: Vec<_> = ports.iter().map(|port| format!("{}->{}", port.host, port.container)).collect();
            let ports = if ports.is_empty() { "no ports".to_owned() } else { ports.join(", ") };
            let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
            format!(": {image}, {ports}, on {}", hosts.join(", "))
        }
        Step::Variable { value: PlannedValue::Text { looks_like_a_credential: true, .. }, .. } => {
            ": as a secret, because it looks like a credential (`plain` in the decisions says otherwise)".to_owned()
        }
        Step::Project { .. }
        | Step::Registry { .. }
        | Step::Group { .. }
        | Step::Secret { .. }
        | Step::Variable { .. } => String::new(),
    }
}

pub(super) fn created(out: &mut impl Write, label: &str) -> io::Result<()> {
    writeln!(out, "  + {label}")
}

pub(super) fn refused(out: &mut impl Write, label: &str, why: &str) -> io::Result<()> {
    writeln!(out, "  ! {label}: {why}")
}

/// The only time it is shown.
pub(super) fn token(out: &mut impl Write, token: &str) -> io::Result<()> {
    writeln!(out, "    its webhook token, which is shown only now: {token}")
}

pub(super) fn next(out: &mut impl Write, first: &[First]) -> io::Result<()> {
    if first.is_empty() {
        return Ok(());
    }
    writeln!(out, "Nothing was deployed. The first deployment replaces the container that V1 started:")?;
    for First { application, id, version } in first {
        let version = version.as_deref().unwrap_or("VERSION");
        let name = application.as_str();
        writeln!(out, r#"  {name}: POST /api/v2/applications/{id}/deployments {{"version":"{version}"}}"#)?;
    }
    Ok(())
}
