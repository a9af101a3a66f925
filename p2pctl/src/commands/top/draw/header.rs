//! The cluster in two lines, and what is wrong in a third.

use super::{
    super::{model::Model, units},
    Setting, Tone,
    grid::GAP,
    put,
};
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Modifier, Style},
};

/// How many lines it takes.
pub(super) fn lines(model: &Model) -> u16 {
    2 + u16::from(wrong(model).is_some())
}

pub(super) fn draw(buffer: &mut Buffer, area: Rect, model: &Model, setting: &Setting) {
    let row = |index: u16| Rect { y: area.y + index, height: 1, ..area }.intersection(area);
    members(buffer, row(0), model, setting);
    sums(buffer, row(1), model, setting);
    if let Some((text, tone)) = wrong(model) {
        put(buffer, row(2), &text, false, setting.paint.style(tone));
    }
}

/// The cluster's name and health, and its members by state; the time to the right.
fn members(buffer: &mut Buffer, row: Rect, model: &Model, setting: &Setting) {
    let (status, paint, clock) = (&model.status, setting.paint, clock(setting.now));
    put(buffer, row, &clock, true, paint.style(Tone::Dim));
    let (health, tone) =
        if status.problems.is_empty() { ("healthy", Tone::Good) } else { ("degraded", Tone::Warn) };
    let mut words = vec![
        (status.cluster_id.clone(), Style::new().add_modifier(Modifier::BOLD)),
        (health.to_owned(), paint.style(tone)),
        (format!("{} alive", status.alive), Style::new()),
    ];
    for (count, state, tone) in [
        (status.suspect, "suspect", Tone::Warn),
        (status.down, "down", Tone::Bad),
        (status.left, "left", Tone::Dim),
    ] {
        if count > 0 {
            words.push((format!("{count} {state}"), paint.style(tone)));
        }
    }
    let end = row.right().saturating_sub(u16::try_from(clock.len()).unwrap_or(0) + GAP);
    let mut x = row.x;
    for (word, style) in words {
        x = buffer.set_stringn(x, row.y, word, usize::from(end.saturating_sub(x)), style).0 + GAP;
    }
}

/// What all nodes do together; to the right who answers for the cluster.
fn sums(buffer: &mut Buffer, row: Rect, model: &Model, setting: &Setting) {
    let [calls, errors, gossip] = model.sums();
    let (calls, errors) = (units::rate(calls), units::rate(errors));
    let text = format!("{calls} calls/s  {errors} errors/s  {}/s gossip sent", units::bytes(gossip));
    put(buffer, row, &text, false, Style::new());
    let mut seen = format!("seen by {}", model.status.node_id);
    if setting.keys {
        seen.push_str(&format!(", {}", setting.asking));
    }
    let left = u16::try_from(text.len()).unwrap_or(u16::MAX).saturating_add(GAP).min(row.width);
    let rest = Rect { x: row.x + left, width: row.width - left, ..row };
    put(buffer, rest, &seen, true, setting.paint.style(Tone::Dim));
}

/// What is wrong with our view of the cluster, else with the cluster.
fn wrong(model: &Model) -> Option<(String, Tone)> {
    if let Some(trouble) = model.trouble() {
        return Some((format!("Not up to date: {trouble}"), Tone::Bad));
    }
    let (first, others) = model.status.problems.split_first()?;
    let text = if others.is_empty() { first.clone() } else { format!("(1 of {}) {first}", others.len() + 1) };
    Some((text, Tone::Warn))
}

/// `17:45:03Z`
fn clock(now: i64) -> String {
    let of_day = now.rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}Z", of_day / 3_600, of_day / 60 % 60, of_day % 60)
}
