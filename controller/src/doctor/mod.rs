//! `floodwall doctor`: what stands in the way of protecting an interface, before anything is attached. Each finding has an
//! identifier that stays, and says what mends it. It changes nothing.

mod device;
mod host;

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::configuration::Source;
use crate::dataplane;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Good,
    /// It works, but slower, or with less.
    Warning,
    /// It will not work.
    Problem,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Identifier, never changed.
    pub id: String,
    /// How much it matters.
    pub severity: Severity,
    /// The interface that it is about; null for the host.
    pub interface: Option<String>,
    /// What it is.
    pub what: String,
    /// What mends it; null where nothing has to be.
    pub mend: Option<String>,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Version of this shape.
    pub schema_version: u32,
    /// The worst of them.
    pub severity: Severity,
    /// In the order in which they matter to a start.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// Of all findings.
    pub fn new(findings: Vec<Finding>) -> Self {
        let severity = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Good);
        Self { schema_version: crate::api::SCHEMA_VERSION, severity, findings }
    }
}

/// Looks at the host, and at these interfaces, or else at those of the file.
///
/// # Errors
/// Where the network devices cannot be asked, or one is not there.
pub async fn diagnose(bpffs: &Path, file: Option<&Path>, interfaces: &[String]) -> anyhow::Result<Diagnosis> {
    let devices = dataplane::devices().await?;
    let found = Source::find(file);
    let mut findings = vec![configuration(found.as_ref())];
    let configuration = found.ok().flatten().unwrap_or_default().configuration;
    findings.extend(host::findings(bpffs, &configuration));
    let of_file = configuration.interfaces.as_deref().unwrap_or_default();
    for name in if interfaces.is_empty() { of_file } else { interfaces } {
        let device = dataplane::find(&devices, name)?;
        let carriers = dataplane::carriers(&devices, device);
        findings.push(device::made_of(device, &carriers));
        findings.extend(carriers.into_iter().flat_map(device::findings));
    }
    Ok(Diagnosis::new(findings))
}

fn configuration(found: Result<&Option<Source>, &anyhow::Error>) -> Finding {
    let id = "configuration";
    match found {
        Err(wrong) => {
            let lines = crate::exit::describe(wrong);
            let what = lines.lines().map(str::trim).collect::<Vec<_>>().join("; ");
            finding(id, Severity::Problem, what, Some("floodwall config check"))
        }
        Ok(None) => finding(id, Severity::Good, "there is no file: all is as the verbs set it", None),
        Ok(Some(source)) => {
            let files: Vec<_> = source.files.iter().map(|file| file.display().to_string()).collect();
            finding(id, Severity::Good, format!("{}: right, {} keys", files.join(", "), source.origins.len()), None)
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// A finding about the host.
pub(crate) fn finding(id: &str, severity: Severity, what: impl Into<String>, mend: Option<&str>) -> Finding {
    Finding { id: id.to_owned(), severity, interface: None, what: what.into(), mend: mend.map(str::to_owned) }
}
