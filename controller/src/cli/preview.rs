//! `floodwall limits preview`.

use super::args::{Global, PreviewLimit};
use super::backend::Backend;
use super::print;
use super::show::{Table, short, who_shares};
use crate::exit::{Exit, Failure};
use crate::groups::check_name;
use crate::preview::PreviewView;

pub(super) async fn run(global: &Global, limit: &PreviewLimit) -> anyhow::Result<()> {
    let PreviewLimit { name, per, group, pps, burst } = limit;
    group.as_deref().map(check_name).transpose().map_err(|text| Failure::new(Exit::Usage, text))?;
    let group = group.as_ref().map(|group| format!("&group={group}")).unwrap_or_default();
    let burst = burst.map(|burst| format!("&burst={burst}")).unwrap_or_default();
    let path = format!("/api/v1/limits/preview?name={name}&per={per}{group}&pps={pps}{burst}");
    let view: PreviewView = Backend::daemon(global).await?.get(&path).await?;
    print(global, &view, show)
}

fn show(view: &PreviewView) -> String {
    let PreviewView { name, packets, window_s, samples, .. } = view;
    let per = who_shares(&view.per, view.group.as_deref());
    if *samples == 0 {
        return format!("no {name} packet that came as far as limits was sampled in the last {window_s} s\n");
    }
    let percent = |share: f64| format!("{:.1}", share * 100.0);
    let mut text = format!(
        "{name}, {} packets/s per {per}, burst {}: would have dropped {} % ({} to {} %) of {} packets in {window_s} s, of {} of {} \
         sources\n",
        packets.per_second,
        packets.burst,
        percent(view.dropped_share),
        percent(view.dropped_share_low),
        percent(view.dropped_share_high),
        short(view.seen_packets as f64),
        view.sources_dropped,
        view.sources
    );
    if !view.dropped.is_empty() {
        let mut table = Table::new(&["source", "most in a second", "would have lost", "samples"]);
        for source in &view.dropped {
            table.row([
                source.source.clone(),
                short(source.peak_packets_per_second as f64),
                format!("{} %", percent(source.dropped_share)),
                source.samples.to_string(),
            ]);
        }
        text += &format!("\n{}", table.render());
    }
    text += &format!(
        "\nestimated from {samples} sampled headers, one of {} packets: with n samples a rate is known to about 1/√n.\n\
         Rates are means of seconds: what is shorter is not seen, so leave the burst room.\n",
        short((view.seen_packets as f64 / *samples as f64).max(1.0))
    );
    if view.group.is_some() {
        text += "Sources of the group that were too small to be kept apart are not in it.\n";
    }
    if view.unattributed_share >= 0.001 {
        let share = percent(view.unattributed_share);
        text += &format!("{share} % came from sources too small to be kept apart, and counts as passed.\n");
    }
    text
}
