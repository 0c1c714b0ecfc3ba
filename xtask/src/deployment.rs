//! The part of `lint` that reads what is deployed: the service, the container recipe, the Kubernetes manifests and the alert
//! rules, each by a program that knows its kind. Whether the daemon lives under them is a test (`tests/tests/deployment.rs`).

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command;
use crate::setup::validators;

const UNIT: &str = "deploy/systemd/floodwall.service";
const RECIPE: &str = "deploy/container/Dockerfile";
const MANIFESTS: [&str; 1] = ["deploy/kubernetes/floodwall.yaml"];
const ALERTS: &str = "deploy/prometheus/alerts.yml";
/// Where the unit says that the program is: not there on a machine that only checks it.
const PROGRAM: &str = "/usr/sbin/floodwall";
/// The worst that `systemd-analyze security` may say of the unit, in tenths.
const EXPOSURE: &str = "25";
/// The oldest and the newest Kubernetes that the manifests have to be right for.
const KUBERNETES: [&str; 2] = ["1.30", "1.37"];

/// Every check is made, whatever became of those before.
pub(crate) fn lint() -> Result<()> {
    let outcomes = [unit_is_understood(), unit_is_narrow(), recipe(), manifests(), alerts()];
    let failed: Vec<_> = outcomes.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    if !failed.is_empty() {
        bail!("what is deployed is not right:\n  - {}", failed.join("\n  - "));
    }
    Ok(())
}

/// systemd says what it does not know and ends well: what it says of this unit counts. It looks for the program too, so a copy
/// names one that is there.
fn unit_is_understood() -> Result<()> {
    let text = fs::read_to_string(command::repository().join(UNIT)).context(UNIT)?;
    let directory = command::target_dir()?.join("lint");
    fs::create_dir_all(&directory)?;
    let copy = directory.join("floodwall.service");
    fs::write(&copy, text.replace(PROGRAM, "/bin/sh"))?;
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(&copy);
    eprintln!("$ {}", command::shown(&verify));
    let output = verify.output().context("cannot start systemd-analyze")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let complaints: Vec<_> = said.lines().filter(|line| line.contains("floodwall.service")).collect();
    if !complaints.is_empty() || !output.status.success() {
        bail!("{UNIT}: {}", if complaints.is_empty() { said } else { complaints.join("; ") });
    }
    Ok(())
}

fn unit_is_narrow() -> Result<()> {
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--no-pager", "--offline=true"]).arg(format!("--threshold={EXPOSURE}")).arg(UNIT);
    security.current_dir(command::repository());
    eprintln!("$ {}", command::shown(&security));
    let output = security.output().context("cannot start systemd-analyze")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let verdict = said.lines().last().unwrap_or_default();
    eprintln!("{verdict}");
    if !output.status.success() {
        bail!("{UNIT}: {verdict}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn recipe() -> Result<()> {
    command::run(in_repository(&validators::program("hadolint")?).arg(RECIPE))
}

fn manifests() -> Result<()> {
    let validate = validators::program("kubernetes-validate")?;
    let check = |version| {
        command::run(in_repository(&validate).args(["--strict", "--kubernetes-version", version]).args(MANIFESTS))
    };
    KUBERNETES.into_iter().try_for_each(check)
}

fn alerts() -> Result<()> {
    command::run(in_repository("promtool".as_ref()).args(["check", "rules", ALERTS]))
}

fn in_repository(program: &Path) -> Command {
    let mut validator = Command::new(program);
    validator.current_dir(command::repository());
    validator
}
