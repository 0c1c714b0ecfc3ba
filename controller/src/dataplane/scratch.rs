//! Maps of their own for a moment, to try the filter on before it is attached: what it counts and remembers there is gone
//! with them. It attaches nothing.

use super::error::Result;
use super::{Dataplane, Pins, clear, create_directory, create_maps};

/// New maps beside those in force, as of a first start. Fields are dropped in this order, the pins last.
pub struct Scratch {
    dataplane: Dataplane,
    _pins: Cleared,
}

/// Pins that go with this value.
struct Cleared(Pins);

impl Drop for Cleared {
    fn drop(&mut self) {
        // What stays behind is removed by the next one, and by `uninstall`.
        let _ = clear(&self.0);
    }
}

impl Scratch {
    /// The maps.
    pub const fn dataplane(&mut self) -> &mut Dataplane {
        &mut self.dataplane
    }
}

impl Dataplane {
    /// Makes maps beside these. Whoever holds the lock of these is alone with those too.
    ///
    /// # Errors
    /// Where the kernel refuses: nothing stays behind then.
    pub fn scratch(&self) -> Result<Scratch> {
        let pins = self.pins.scratch();
        if pins.directory().exists() {
            // Of a process that was killed meanwhile.
            clear(&pins)?;
        }
        let cleared = Cleared(pins.clone());
        create_directory(&pins)?;
        create_maps(&pins)?;
        Ok(Scratch { dataplane: Self::open_maps(pins, None)?, _pins: cleared })
    }
}
