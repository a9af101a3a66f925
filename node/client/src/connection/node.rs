//! Questions and orders about the connected node itself: its facts, its settings, what is wrong with it.

use super::{Connection, MAX_ANSWER_BYTES};
use crate::CallError;
use p2p_proto::v1::{
    ExamineRequest, ExamineResponse, GetConfigRequest, GetConfigResponse, GetInfoRequest, GetInfoResponse,
    ReloadRequest, ReloadResponse, system_service_client::SystemServiceClient,
};
use std::time::Duration;

/// A node may take so long to read its files, or to call all members; a shorter timeout of the connection does not end the
/// wait for it.
const PATIENCE: Duration = Duration::from_secs(25);

impl Connection {
    /// Facts about the connected node.
    pub async fn info(&self) -> Result<GetInfoResponse, CallError> {
        let mut client = SystemServiceClient::new(self.channel());
        let answer = client.get_info(self.request(GetInfoRequest {})).await;
        self.answer(answer).await
    }

    /// What is wrong with the connected node, as it finds itself.
    pub async fn examine(&self) -> Result<ExamineResponse, CallError> {
        let patient = self.patient(PATIENCE);
        let mut client =
            SystemServiceClient::new(patient.channel()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let answer = client.examine(patient.request(ExamineRequest {})).await;
        patient.answer(answer).await
    }

    /// The settings in force of the connected node.
    pub async fn config(&self) -> Result<GetConfigResponse, CallError> {
        let mut client = SystemServiceClient::new(self.channel());
        let answer = client.get_config(self.request(GetConfigRequest {})).await;
        self.answer(answer).await
    }

    /// Has the connected node read its configuration anew; with `dry_run`, asks what that would do.
    pub async fn reload(&self, dry_run: bool) -> Result<ReloadResponse, CallError> {
        let patient = self.patient(PATIENCE);
        let mut client = SystemServiceClient::new(patient.channel());
        let answer = client.reload(patient.request(ReloadRequest { dry_run })).await;
        patient.answer(answer).await
    }
}
