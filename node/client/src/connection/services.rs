//! Questions and orders about services.

use super::{Connection, MAX_ANSWER_BYTES};
use crate::CallError;
use p2p_proto::v1::{
    DeregisterServiceRequest, ListServicesRequest, RegisterServiceRequest, ServiceInfo, ServiceState,
    SetServiceStateRequest, registry_service_client::RegistryServiceClient,
};

impl Connection {
    /// Every service that the cluster provides, sorted by name, and how the connected node's upstreams stand.
    pub async fn list_services(&self) -> Result<Vec<ServiceInfo>, CallError> {
        let mut client =
            RegistryServiceClient::new(self.channel()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let answer = client.list_services(self.request(ListServicesRequest {})).await;
        self.answer(answer).await.map(|list| list.services)
    }

    /// Makes a process a provider through the connected node.
    pub async fn register_service(&self, request: RegisterServiceRequest) -> Result<ServiceInfo, CallError> {
        let mut client = RegistryServiceClient::new(self.channel());
        let answer = client.register_service(self.request(request)).await;
        self.answer(answer).await.map(|answer| answer.service.unwrap_or_default())
    }

    /// Forgets a registration of the connected node; returns how many calls are still in flight.
    pub async fn deregister_service(&self, name: &str) -> Result<u32, CallError> {
        let mut client = RegistryServiceClient::new(self.channel());
        let request = DeregisterServiceRequest { name: name.to_owned() };
        let answer = client.deregister_service(self.request(request)).await;
        self.answer(answer).await.map(|answer| answer.in_flight)
    }

    /// Enables, drains or disables a service of the connected node's upstreams.
    pub async fn set_service_state(&self, name: &str, state: ServiceState) -> Result<ServiceInfo, CallError> {
        let mut client = RegistryServiceClient::new(self.channel());
        let request = SetServiceStateRequest { name: name.to_owned(), state: state.into() };
        let answer = client.set_service_state(self.request(request)).await;
        self.answer(answer).await.map(|answer| answer.service.unwrap_or_default())
    }
}
