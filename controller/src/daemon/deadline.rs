//! Whoever waits for the kernel may wait for ever: its verifier walks a program as long as that takes. A start that takes too
//! long is ended with a word, instead of by the service manager without one.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// Calls for something when time is over, unless it is dropped before.
pub(super) struct Deadline {
    _in_time: Sender<()>,
}

impl Deadline {
    pub(super) fn new(limit: Duration, late: impl FnOnce() + Send + 'static) -> Self {
        let (in_time, done) = channel();
        thread::spawn(move || {
            // The other end goes with the value.
            if done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                late();
            }
        });
        Self { _in_time: in_time }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_late_is_told_and_who_is_in_time_is_not() {
        let (told, heard) = channel();
        let late = told.clone();
        let in_time = Deadline::new(Duration::from_secs(3_600), move || told.send("in time").unwrap_or_default());
        let waits = Deadline::new(Duration::from_millis(10), move || late.send("late").unwrap_or_default());
        assert_eq!(heard.recv(), Ok("late"));
        drop(in_time);
        // The thread of the other one ends without a word, and its end of the channel with it.
        assert!(heard.recv().is_err());
        drop(waits);
    }
}
