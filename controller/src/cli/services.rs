//! `floodwall service` and `floodwall lockdown`.

use floodwall_common::reason::Reason;
use floodwall_common::services::Transport;

use super::args::{AddService, Global, Service, Switch, VerdictName};
use super::backend::Backend;
use super::{print, show};
use crate::api::{PolicyEntry, RateView, ServiceView, ServicesChange, ServicesView};
use crate::dataplane::is_automatic;
use crate::exit::{Exit, Failure};
use crate::listeners;

pub(super) async fn run(global: &Global, verb: Service) -> anyhow::Result<()> {
    let change = match verb {
        Service::List => None,
        Service::Add(add) => {
            let named = Backend::find(global).await?.services().await?;
            Some(ServicesChange { add: services(&add, &named)?, ..Default::default() })
        }
        Service::Remove { names } => Some(ServicesChange { remove: names, ..Default::default() }),
    };
    let backend = Backend::find(global).await?;
    let view = match change {
        None => backend.services().await?,
        Some(change) => backend.change_services(&change).await?,
    };
    print(global, &view, show::services)
}

/// Whether nobody has named a service: what detection has made of ports by itself goes with a lockdown of everything.
fn has_none(named: &ServicesView) -> bool {
    named.services.iter().all(|view| is_automatic(&view.name))
}

/// Arms or disarms the reason for what no service expects.
pub(super) async fn lockdown(global: &Global, state: Switch, force: bool) -> anyhow::Result<()> {
    if state == Switch::On && !force && has_none(&Backend::find(global).await?.services().await?) {
        let text = "no service is named: all that nobody here has asked for would be dropped, your next login too";
        let hint = "floodwall service add --listen takes what this host listens on; or add --force";
        return Err(Failure::new(Exit::Usage, text).hint(hint).into());
    }
    let verdict = match state {
        Switch::On => VerdictName::Drop,
        Switch::Off => VerdictName::Pass,
    };
    let entry = PolicyEntry {
        reason: Reason::NoService.label().to_owned(),
        verdict: verdict.label().to_owned(),
        default: None,
    };
    let view = Backend::find(global).await?.set_policy(&entry).await?;
    print(global, &view, show::policies)
}

fn services(add: &AddService, named: &ServicesView) -> anyhow::Result<Vec<ServiceView>> {
    let cap = add.cap_pps.map(|per_second| RateView::cap(per_second, add.cap_burst));
    let connections_per_second = add.connections_per_second;
    let Some(name) = add.name.clone().filter(|_| !add.listen) else {
        let known = named.services.iter().filter(|view| !is_automatic(&view.name));
        let known: Vec<_> = known.filter_map(|view| view.service().ok()).collect();
        let is_known = |port: &(Transport, u16)| known.iter().any(|service| service.ports.contains(port));
        let listening = listeners::for_others()?;
        if listening.is_empty() {
            return Err(Failure::new(Exit::Failed, "this host listens on no port for others").into());
        }
        let new = listening.into_iter().filter(|port| !is_known(port)).map(|(transport, port)| ServiceView {
            name: format!("{}-{port}", transport.label()),
            ports: vec![format!("{}/{port}", transport.label())],
            cap,
            connections_per_second,
            ..ServiceView::default()
        });
        return Ok(new.collect());
    };
    let protocols = add.proto.iter().map(|proto| proto.label());
    let ports = protocols.flat_map(|proto| add.ports.iter().map(move |port| format!("{proto}/{port}"))).collect();
    Ok(vec![ServiceView { name, ports, cap, connections_per_second, ..ServiceView::default() }])
}
