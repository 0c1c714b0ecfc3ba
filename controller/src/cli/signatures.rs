//! `floodwall signature`.

use super::args::{AddSignature, Global, Signature};
use super::backend::Backend;
use super::{print, show};
use crate::api::{SignatureFields, SignatureView, SignaturesChange};

pub(super) async fn run(global: &Global, verb: Signature) -> anyhow::Result<()> {
    let backend = Backend::find(global).await?;
    let view = match verb {
        Signature::List => backend.signatures().await?,
        Signature::Add(add) => backend.change_signatures(&addition(*add)).await?,
        Signature::Remove { names } => {
            let change = SignaturesChange { remove: names, ..SignaturesChange::default() };
            backend.change_signatures(&change).await?
        }
    };
    print(global, &view, show::signatures)
}

fn addition(add: AddSignature) -> SignaturesChange {
    let fields = SignatureFields {
        family: add.family,
        protocol: add.proto,
        source_ports: add.src_port,
        destination_ports: add.dst_port,
        length: add.length,
        hops: add.hops,
        flags: add.flags,
        options: add.options,
        fragment: add.fragment,
        payload: add.payload,
    };
    let signature = SignatureView {
        name: add.name,
        action: add.action.label().to_owned(),
        fields,
        ttl_s: add.ttl.map(|ttl| ttl.as_secs()),
        reason: add.reason,
        ..SignatureView::default()
    };
    SignaturesChange { add: vec![signature], force: add.force, ..SignaturesChange::default() }
}
