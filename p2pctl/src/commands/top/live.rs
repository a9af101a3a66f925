//! The screen while it is looked at: news, keys and signals in, pictures out.

use super::{
    draw::{self, Setting},
    model::{Model, Update},
    source::Source,
    terminal::Terminal,
    view::{Flow, View},
};
use crate::{
    error::{Exit, Failure, Outcome},
    output::time::unix_now,
};
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures_util::StreamExt as _;
use std::time::Duration;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

/// News that wait to be taken.
const UPDATES: usize = 256;
/// The shortest time between pictures of news; keys are answered at once.
const FRAME: Duration = Duration::from_millis(250);

/// Shows the cluster until the user has seen enough.
pub(super) async fn run(
    source: &Source,
    first: Vec<Update>,
    every: Duration,
    mut view: View,
    mut setting: Setting,
) -> Outcome {
    let (sender, mut updates) = mpsc::channel(UPDATES);
    let mut terminated = stop(SignalKind::terminate())?;
    let mut hung_up = stop(SignalKind::hangup())?;
    let mut interrupted = stop(SignalKind::interrupt())?;
    let mut model = Model::default();
    first.into_iter().for_each(|update| model.update(update));
    let mut terminal = Terminal::enter()?;
    let mut keys = EventStream::new();
    let mut frames = tokio::time::interval(FRAME);
    let mut asking = std::pin::pin!(source.follow(every, &sender));
    let mut outdated = true;
    loop {
        tokio::select! {
            () = &mut asking => return Ok(Exit::Success),
            Some(update) = updates.recv() => {
                model.update(update);
                outdated = true;
                continue;
            }
            event = keys.next() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    if view.press(key, &model) == Flow::Quit {
                        return Ok(Exit::Success);
                    }
                }
                Some(Ok(Event::Resize(..))) => {}
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(Failure::other(format!("cannot read keys: {error}"))),
                None => return Ok(Exit::Success),
            },
            _ = frames.tick() => {
                let now = unix_now();
                // Ages grow each second.
                if !std::mem::take(&mut outdated) && now == setting.now {
                    continue;
                }
                setting.now = now;
            }
            _ = terminated.recv() => return Ok(Exit::Success),
            _ = hung_up.recv() => return Ok(Exit::Success),
            _ = interrupted.recv() => return Ok(Exit::Success),
        }
        terminal.draw(|buffer, area| draw::draw(buffer, area, &model, &mut view, &setting))?;
    }
}

fn stop(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::other(format!("cannot await signals: {error}")))
}
