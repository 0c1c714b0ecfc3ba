//! What may be typed of incidents and replays.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::duration;

/// What `replay` takes.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Replay {
    /// Capture files (pcap, pcapng), or directories of them
    #[arg(required = true, value_name = "FILE")]
    pub(in crate::cli) files: Vec<PathBuf>,
    /// A protected address; may be given several times. Without it, the one that most packets go to
    #[arg(long, value_name = "ADDRESS")]
    pub(in crate::cli) protect: Vec<IpAddr>,
    /// max: as fast as it can; 1: as it was, 10: ten times as fast
    #[arg(long, default_value = "max", value_name = "FACTOR")]
    pub(in crate::cli) speed: Speed,
    /// Only say what goes on, and do nothing about it
    #[arg(long)]
    pub(in crate::cli) advise: bool,
    /// Say too what was measured of each kind of packets, in the second with most of them
    #[arg(long)]
    pub(in crate::cli) features: bool,
}

/// How fast a capture is replayed.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Speed(pub(in crate::cli) Option<f64>);

impl std::str::FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            _ if text == "max" => Ok(Self(None)),
            Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(Self(Some(factor))),
            _ => Err("neither max nor a number above 0".to_owned()),
        }
    }
}

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Incident {
    /// Show all of them, the latest last
    List {
        /// Print what happens in them from now on, a line of JSON each, until stopped
        #[arg(long)]
        follow: bool,
        /// What has happened since the event of this number, first
        #[arg(long, value_name = "NUMBER", requires = "follow")]
        after: Option<i64>,
    },
    /// Show one
    Show {
        /// Its name; without it, the latest
        id: Option<String>,
    },
    /// Write something into the timeline of the one that goes on
    Note {
        /// What
        text: String,
    },
    /// Say that somebody looks after the one that goes on
    Ack,
    /// Say that the one that goes on is over
    Resolve,
    /// Print one as a text to send
    Export {
        /// Its name; without it, the latest
        id: Option<String>,
        /// Which text
        #[arg(long, value_enum, default_value_t = Text::Markdown)]
        format: Text,
    },
    /// Print a request to the provider: what, where, since when, from whom, and by what it is told
    IspRequest {
        /// The incident's name; without it, the latest
        id: Option<String>,
    },
    /// Print a notice to customers, of where it stands now
    CustomerNotice {
        /// The incident's name; without it, the latest
        id: Option<String>,
    },
}

/// A text that an incident makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Text {
    /// A draft of the postmortem
    Markdown,
    /// A request to the provider
    IspRequest,
    /// A notice to customers
    CustomerNotice,
    /// The record itself
    Json,
}

#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum Drill {
    /// Have the alert fire
    Start {
        /// For how long
        #[arg(long = "for", default_value = "5m", value_parser = duration, value_name = "TIME")]
        lasts: Duration,
    },
    /// Write down that it reached somebody
    Received {
        /// Whom, and by what
        text: String,
    },
}
