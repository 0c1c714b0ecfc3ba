//! Text in maps: UTF-8 padded with zeros.

/// As much of a text as fits, cut between characters: what is read back is text again.
pub(super) fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut length = text.len().min(N);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
    bytes
}

/// What is kept of a reason.
pub fn kept_note(text: &str) -> String {
    unpadded(&padded::<{ floodwall_common::lists::NOTE_BYTES }>(text))
}

/// The text that was padded.
pub(super) fn unpadded(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(unpadded(&padded::<5>("ééé")), "éé");
        assert_eq!(unpadded(&padded::<4>("ab")), "ab");
        assert_eq!(unpadded(&padded::<2>("ab")), "ab");
    }
}
