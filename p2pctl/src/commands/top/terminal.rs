//! The terminal: taken whole while `top` runs, and given back as it was, however that ends.

use crate::error::Failure;
use ratatui::{DefaultTerminal, buffer::Buffer, layout::Rect};

pub(super) struct Terminal(DefaultTerminal);

impl Terminal {
    /// Takes it: raw mode, the alternate screen, and a hook that gives it back before a panic is told.
    pub(super) fn enter() -> Result<Self, Failure> {
        ratatui::try_init().map(Self).map_err(|error| {
            restore();
            Failure::other(format!("cannot draw on this terminal: {error}"))
        })
    }

    pub(super) fn draw(&mut self, picture: impl FnOnce(&mut Buffer, Rect)) -> Result<(), Failure> {
        let drawn = self.0.draw(|frame| {
            let area = frame.area();
            picture(frame.buffer_mut(), area);
        });
        drawn.map(|_| ()).map_err(|error| Failure::other(format!("cannot draw on this terminal: {error}")))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The hook has done so already: once more, the cursor would jump back before what it told.
        if !std::thread::panicking() {
            restore();
        }
    }
}

fn restore() {
    // A terminal that is gone needs nothing back.
    if ratatui::try_restore().is_err() {}
}
