//! Exit codes, and the errors that carry one.

use std::fmt;

/// What the process says to its caller, the same for every verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Exit {
    /// Done; for `status`: enforcing.
    Done = 0,
    /// Could not answer.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The configuration is wrong.
    Configuration = 3,
    /// The kernel, a capability, an interface or a file system is not as needed.
    Environment = 4,
    /// Somebody else holds what is needed, or was faster.
    Conflict = 5,
    /// Attached, but not enforcing; for `doctor`: it will work, with less.
    NotEnforcing = 10,
    /// Not attached where it should be, for `doctor` that it cannot be: fix something first.
    NotAttached = 11,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error with the exit code that it means: what is wrong, and what to do next.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// Exit code.
    pub exit: Exit,
    /// What is wrong, and where.
    pub error: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Failure {
    /// A failure that says what is wrong.
    pub fn new(exit: Exit, error: impl Into<String>) -> Self {
        Self { exit, error: error.into(), hint: None }
    }

    /// The same, and what to do next.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  try: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// The exit code of an error: that of the first failure in its chain, or [`Exit::Failed`].
pub fn exit_of(error: &anyhow::Error) -> Exit {
    error
        .chain()
        .find_map(|cause| {
            let failure = cause.downcast_ref::<Failure>().map(|failure| failure.exit);
            failure.or_else(|| cause.downcast_ref::<crate::dataplane::Error>().map(crate::dataplane::Error::exit))
        })
        .unwrap_or(Exit::Failed)
}

/// An error and its causes in words. A cause that the words before it name already is not named again.
pub fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text += ": ";
            text += &cause;
        }
    }
    text
}
