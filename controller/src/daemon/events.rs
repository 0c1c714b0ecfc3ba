//! What happens in incidents, as it happens: one answer that is held open, a line of JSON for each event.
//!
//! It is bounded like all else: so many at once, each for so long, and a batch of lines is read only once the one before is taken. Who
//! hangs up, or takes nothing until the connection's time is up, is let go of. While nothing happens an empty line is sent now and then: only
//! by that it shows that nobody is there any more.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Daemon;
use crate::exit::{Exit, Failure};
use crate::incident::Happened;

/// How many there are at once.
const STREAMS: usize = 8;
/// How long one is held open: a little less than a connection may last. Whoever follows asks again.
const LASTS: Duration = Duration::from_secs(50);
/// How long nothing is sent at most.
const QUIET: Duration = Duration::from_secs(1);
/// How often it is looked whether something has happened.
const LOOKS_EVERY: Duration = Duration::from_millis(250);

/// Room for those who follow.
pub(super) struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(STREAMS)))
    }
}

struct Following {
    daemon: Arc<Daemon>,
    after: i64,
    until: Instant,
    _permit: OwnedSemaphorePermit,
}

/// Events, a line each.
///
/// # Errors
/// Where one cannot be written as JSON.
pub(super) fn lines(events: &[Happened]) -> anyhow::Result<String> {
    let lines: Vec<_> = events.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    Ok(lines.iter().flat_map(|line| [line, "\n"]).collect())
}

/// An answer that is held open for what happens after the event of this number.
///
/// # Errors
/// Where too many follow already.
pub(super) fn follow(daemon: Arc<Daemon>, after: i64) -> Result<Body, Failure> {
    let full = |_| {
        let text = format!("{STREAMS} follow already, and no more may");
        Failure::new(Exit::Conflict, text).hint("end one of them, or ask without follow")
    };
    let permit = Arc::clone(&daemon.streams.0).try_acquire_owned().map_err(full)?;
    let following = Following { daemon, after, until: Instant::now() + LASTS, _permit: permit };
    Ok(Body::from_stream(stream::try_unfold(following, next)))
}

/// The next lines, once there are some; `None` when its time is up.
async fn next(mut following: Following) -> anyhow::Result<Option<(String, Following)>> {
    let quiet_until = Instant::now() + QUIET;
    while Instant::now() < following.until {
        let (daemon, after) = (Arc::clone(&following.daemon), following.after);
        let events = tokio::task::spawn_blocking(move || daemon.store().since(after)).await??;
        if let Some(last) = events.last() {
            following.after = last.number;
            return Ok(Some((lines(&events)?, following)));
        }
        if Instant::now() >= quiet_until {
            return Ok(Some(("\n".to_owned(), following)));
        }
        // condition: the loop asks again.
        tokio::time::sleep(LOOKS_EVERY).await;
    }
    Ok(None)
}
