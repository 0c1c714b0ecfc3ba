//! A request to the kernel by netlink and its answers, with what it says in words where it refuses.

use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

/// Bytes of the header of a message: of a refused one no more comes back.
const HEADER: usize = 16;
/// The attribute of a refusal that has its words.
const WORDS: u16 = 1;

/// A refusal.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: io::Error,
    /// What the kernel or a driver says of it, in words.
    pub(super) said: Option<String>,
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self { error, said: None }
    }
}

/// Sends a request, and collects the answers until the kernel says that it is done.
pub(super) fn ask(message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    ask_for_words(message, flags).map_err(|refused| refused.error)
}

/// The same, with the words of a refusal.
pub(super) fn ask_for_words(message: RouteNetlinkMessage, flags: u16) -> Result<Vec<RouteNetlinkMessage>, Refused> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // Without words a refusal is still one.
    let _ = socket.set_ext_ack(true).and_then(|()| socket.set_cap_ack(true));
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let answer = NetlinkMessage::deserialize(rest).map_err(io::Error::other)?;
            let length = (answer.header.length as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => answers.push(message),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    let said = words(error.header.get(HEADER..).unwrap_or_default());
                    return Err(Refused { error: error.to_io(), said });
                }
                NetlinkPayload::Done(done) if done.code != 0 => {
                    return Err(io::Error::from_raw_os_error(done.code.abs()).into());
                }
                NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answers),
                _ => {}
            }
        }
    }
}

/// The words among the attributes of a refusal: of each, two bytes of length, two of kind, and what it holds.
fn words(mut attributes: &[u8]) -> Option<String> {
    while let [l0, l1, k0, k1, ..] = *attributes {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let held = attributes.get(4..length)?;
        if u16::from_ne_bytes([k0, k1]) == WORDS {
            return Some(super::text::unpadded(held)).filter(|said| !said.is_empty());
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, held: &[u8]) -> Vec<u8> {
        let mut bytes = (held.len() as u16 + 4).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(held);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_words_of_a_refusal_are_found_and_nothing_else_is_read() {
        let both = [attribute(2, &[1, 2, 3, 4]), attribute(WORDS, b"Too many\0")].concat();
        assert_eq!(words(&both).as_deref(), Some("Too many"));
        for end in 0..both.len() - 3 {
            assert_eq!(words(&both[..end]), None, "{end}");
        }
        assert_eq!(words(&attribute(2, b"other\0")), None);
        assert_eq!(words(&[0; 8]), None, "an attribute without a length ends it");
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        use netlink_packet_route::link::{LinkAttribute, LinkMessage};
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName("nowhere0".to_owned()));
        let refused = ask(RouteNetlinkMessage::GetLink(message), 0).expect_err("there is no such device");
        assert_eq!(refused.raw_os_error(), Some(libc::ENODEV));
    }
}
