//! The figures as tables, written between two marks of a document.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::Figure;
use super::live::{Live, Noticed, Taken};

/// Puts text between the marks of the bench.
///
/// # Errors
/// As [`write_between`].
pub fn write(document: &Path, text: &str) -> Result<()> {
    write_between(document, "bench", text)
}

/// Puts text between the marks of this name.
///
/// # Errors
/// Where the document cannot be read or written, or has no such marks.
pub fn write_between(document: &Path, name: &str, text: &str) -> Result<()> {
    let named = || document.display().to_string();
    let old = std::fs::read_to_string(document).with_context(named)?;
    let new =
        between(&old, name, text).with_context(|| format!("{}: no `<!-- {name} -->` … `<!-- /{name} -->`", named()))?;
    std::fs::write(document, new).with_context(named)
}

fn between(old: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = old.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{text}{end}{after}"))
}

/// All figures, and where they are from.
///
/// # Errors
/// Where the machine does not say what it is.
pub fn tables(cases: &[Figure], live: Option<&Live>) -> Result<String> {
    let mut text = format!("{}\n\n### By test runs\n\n", machine()?);
    text.push_str("| case | ns per packet | ratio |\n|---|---|---|\n");
    for Figure { name, ns, ratio } in cases {
        writeln!(text, "| `{name}` | {ns:.1} | {ratio:.2} |")?;
    }
    let Some(live) = live else { return Ok(text) };
    text.push_str("\n### Live: one core sends and receives\n\n");
    text.push_str("| before the server | sources | Mpps | share of a bare drop |\n|---|---|---|---|\n");
    for Taken { wall, sources, mpps, ratio } in &live.taken {
        writeln!(text, "| {wall} | {sources} | {mpps:.2} | {ratio:.2} |")?;
    }
    text.push_str("\n### Live: what clients notice\n\n");
    writeln!(
        text,
        "A hundred percent is {:.2} Mpps, what the receiving core takes with Floodwall.\n",
        live.capacity_mpps
    )?;
    text.push_str("| before the server | flood | sent, Mpps | received, Mpps | goodput | p50, ms | p99, ms |\n");
    text.push_str("|---|---|---|---|---|---|---|\n");
    for Noticed { wall, load_percent, sent_mpps, received_mpps, goodput, p50_ms, p99_ms } in &live.noticed {
        let goodput = goodput * 100.0;
        write!(text, "| {wall} | {load_percent} % | {sent_mpps:.2} | {received_mpps:.2} ")?;
        writeln!(text, "| {goodput:.1} % | {p50_ms:.2} | {p99_ms:.2} |")?;
    }
    Ok(text)
}

/// Kernel, processor and cores.
///
/// # Errors
/// Where the machine does not say.
pub fn machine() -> Result<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let processor = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = processor.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    let cores = std::thread::available_parallelism()?;
    Ok(format!("Linux {}, {}, {cores} cores.", kernel.trim(), model.unwrap_or("an unnamed processor").trim()))
}

#[cfg(test)]
mod tests {
    use super::between;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let old = "a\n<!-- bench -->\nold\n<!-- /bench -->\nz\n";
        assert_eq!(between(old, "bench", "new\n").as_deref(), Some("a\n<!-- bench -->\nnew\n<!-- /bench -->\nz\n"));
        assert_eq!(between("a", "bench", "new"), None);
    }
}
