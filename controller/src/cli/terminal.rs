//! What may be sent to whatever standard output and standard error are: colours, and the words that clear a screen.

use std::ffi::OsString;
use std::io::IsTerminal;

/// Whether what is written there may have colours: by the same rules as those of the help, which clap prints.
pub(super) fn has_colours(stream: &impl IsTerminal) -> bool {
    may_have_colours(stream.is_terminal(), |name| std::env::var_os(name))
}

/// Whether it is a screen that can be cleared.
pub(super) fn is_screen(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && knows_words(|name| std::env::var_os(name))
}

fn may_have_colours(is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    let is_zero = |name: &str| variable(name).is_some_and(|value| value == "0");
    match () {
        () if is_set("NO_COLOR") => false,
        () if is_set("CLICOLOR_FORCE") && !is_zero("CLICOLOR_FORCE") => true,
        () => is_terminal && !is_zero("CLICOLOR") && knows_words(variable),
    }
}

/// A terminal of which nobody says what it is may be a printer.
fn knows_words(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    variable("TERM").is_some_and(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_know_them_and_where_nobody_objects() {
        let of = |is_terminal, set: &[(&str, &str)]| {
            may_have_colours(is_terminal, |name| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
            })
        };
        let term = ("TERM", "xterm");
        assert!(of(true, &[term]) && of(true, &[term, ("NO_COLOR", "")]));
        assert!(!of(true, &[term, ("NO_COLOR", "1")]) && !of(true, &[term, ("CLICOLOR", "0")]));
        assert!(!of(true, &[]) && !of(true, &[("TERM", "dumb")]) && !of(false, &[term]));
        assert!(of(false, &[("CLICOLOR_FORCE", "1")]) && !of(false, &[term, ("CLICOLOR_FORCE", "0")]));
        assert!(!of(true, &[term, ("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    }
}
