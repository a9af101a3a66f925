//! What a terminal shows while something takes long.

use std::{
    io::{IsTerminal as _, Write as _, stderr},
    pin::pin,
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// What takes no longer is not spoken of.
const PATIENCE: Duration = Duration::from_millis(500);
/// Pause between two pictures.
const FRAME: Duration = Duration::from_millis(125);
/// What turns, seen one after another.
const FRAMES: [char; 4] = ['|', '/', '-', '\\'];

/// Does `work`; says on stderr what is waited for, and for how long, as long as that takes, if stderr is a terminal that
/// can take it back. The work prints nothing meanwhile.
pub(crate) async fn waiting<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    if dumb || !stderr().is_terminal() {
        return work.await;
    }
    let started = Instant::now();
    if let Ok(done) = timeout(PATIENCE, &mut work).await {
        return done;
    }
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turning = FRAMES.iter().cycle();
    loop {
        tokio::select! {
            done = &mut work => {
                draw("");
                return done;
            }
            _ = frames.tick() => {
                draw(&picture(*turning.next().expect("a cycle"), what, started.elapsed()));
            }
        }
    }
}

fn picture(frame: char, what: &str, since: Duration) -> String {
    format!("{frame} {} ({} s)", super::printable(what), since.as_secs())
}

/// Puts `text` in place of the line before.
fn draw(text: &str) {
    let mut terminal = stderr().lock();
    // A terminal that has gone away shows nothing any more.
    write!(terminal, "\r\u{1b}[2K{text}").and_then(|()| terminal.flush()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_cannot_drive_the_terminal() {
        assert_eq!(picture('|', "a\u{1b}[2J", Duration::from_millis(2900)), "| a?[2J (2 s)");
    }
}
