//! The settings of this node: shown, and read anew.

use super::Parts;
use crate::{
    config::{GivenBy, NotReloaded, TakesEffect},
    error::{Fault, Reason},
};
use p2p_proto::v1::{GetConfigResponse, ReloadResponse, Setting};

/// The settings in force. None of them is a secret: those lie in files, which settings only name.
pub(super) fn in_force(parts: &Parts) -> Result<GetConfigResponse, Fault> {
    let config = parts.running.in_force();
    let setting = |(key, value): (&'static crate::config::Key, _)| -> Result<Setting, Fault> {
        Ok(Setting {
            key: key.name.to_owned(),
            value: serde_json::to_string(&value).map_err(Fault::internal)?,
            given_by: GivenBy::word(config.given_by(key)).to_owned(),
            at_reload: key.takes_effect == TakesEffect::AtReload,
        })
    };
    let settings = config.values().into_iter().map(setting).collect::<Result<_, _>>()?;
    Ok(GetConfigResponse { file: file(parts), settings })
}

/// Has the configuration read anew, or tells what that would do.
pub(super) async fn reload(parts: &Parts, dry_run: bool) -> Result<ReloadResponse, Fault> {
    let answer = parts.running.reload(dry_run).await.map_err(|why| {
        let reason = match why {
            NotReloaded::NoFile => Reason::Precondition,
            NotReloaded::Busy => Reason::Overloaded,
            NotReloaded::Stopping => Reason::ShuttingDown,
        };
        Fault::new(reason, why.to_string())
    })?;
    let names = |keys: Vec<&str>| keys.into_iter().map(str::to_owned).collect();
    let file = file(parts);
    Ok(match answer {
        Ok(report) => ReloadResponse {
            file,
            accepted: true,
            applied: names(report.applied),
            needs_restart: names(report.needs_restart),
            certificates: report.certificates,
            mistakes: Vec::new(),
        },
        Err(mistakes) => ReloadResponse { file, mistakes, ..ReloadResponse::default() },
    })
}

/// What a reload came to, for the audit log.
pub(super) fn outcome(answer: &ReloadResponse, dry_run: bool) -> String {
    match (dry_run, answer.accepted) {
        (true, _) => "a dry run".to_owned(),
        (false, false) => "refused".to_owned(),
        (false, true) if answer.applied.is_empty() => "nothing applied".to_owned(),
        (false, true) => format!("applied {}", answer.applied.join(", ")),
    }
}

fn file(parts: &Parts) -> String {
    parts.running.file().map(|file| file.display().to_string()).unwrap_or_default()
}
