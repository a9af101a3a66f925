//! Questions and orders about the settings of the connected node.

use super::Connection;
use crate::CallError;
use p2p_proto::v1::{
    GetConfigRequest, GetConfigResponse, ReloadRequest, ReloadResponse,
    system_service_client::SystemServiceClient,
};
use std::time::Duration;

/// A node may take so long to read its files; a shorter timeout of the connection does not end the wait for it.
const RELOAD_PATIENCE: Duration = Duration::from_secs(25);

impl Connection {
    /// The settings in force of the connected node.
    pub async fn config(&self) -> Result<GetConfigResponse, CallError> {
        let mut client = SystemServiceClient::new(self.channel());
        let answer = client.get_config(self.request(GetConfigRequest {})).await;
        self.answer(answer).await
    }

    /// Has the connected node read its configuration anew; with `dry_run`, asks what that would do.
    pub async fn reload(&self, dry_run: bool) -> Result<ReloadResponse, CallError> {
        let patient = self.patient(RELOAD_PATIENCE);
        let mut client = SystemServiceClient::new(patient.channel());
        let answer = client.reload(patient.request(ReloadRequest { dry_run })).await;
        patient.answer(answer).await
    }
}
