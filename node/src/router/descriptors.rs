//! Schemas of services that other nodes provide: fetched from a provider, believed by the digest that its signed record
//! carries, and kept.

use super::{Router, no_provider, within};
use crate::{
    error::{Fault, Reason},
    registry::{Method, Provider},
    schema::{MAX_DESCRIPTOR_BYTES, Schema},
};
use bytes::Bytes;
use p2p_proto::v1::{GetDescriptorsRequest, registry_service_client::RegistryServiceClient};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Longest wait for another node's descriptors.
pub(super) const DESCRIPTOR_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for one of several providers.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(2);
/// Providers asked for them.
const PROVIDERS_ASKED: usize = 3;
/// Descriptors fetched at a time.
pub(super) const FETCHES_MAX: usize = 8;

impl Router {
    /// The schema of a method's service: ours, one fetched before, or a provider's, checked against the digest that the
    /// first provider published.
    pub async fn schema(&self, method: &Method) -> Result<Arc<Schema>, Fault> {
        let service = method.info.path.service();
        if let Some(local) = self.registry.local().values().find(|local| local.name.as_str() == service) {
            return Ok(local.schema.clone());
        }
        let missing =
            || Fault::new(Reason::NotFound, format!("the providers of {service} publish no descriptors"));
        let digest = method.descriptor_digest.ok_or_else(missing)?;
        if let Some(known) = self.known_schema(service, &digest) {
            return known;
        }
        let fetched = async {
            let _turn = self.generic.fetches.acquire().await.map_err(Fault::internal)?;
            // Whoever had the turn before may have fetched the same.
            match self.known_schema(service, &digest) {
                Some(known) => known,
                None => self.fetch(method, digest).await,
            }
        };
        within(Some(Instant::now() + DESCRIPTOR_TIMEOUT), fetched).await?
    }

    /// What is known of the schema with `digest`, if it was fetched before.
    pub(super) fn known_schema(
        &self,
        service: &str,
        digest: &[u8; 32],
    ) -> Option<Result<Arc<Schema>, Fault>> {
        let verdict = self.registry.schemas().get(digest)?;
        Some(verdict.map_err(|why| unusable(service, &why)))
    }

    async fn fetch(&self, method: &Method, digest: [u8; 32]) -> Result<Arc<Schema>, Fault> {
        let service = method.info.path.service();
        let mut last = no_provider(&method.info.path);
        // By node id: the digest is that of the first.
        let mut providers: Vec<_> = method.providers.iter().collect();
        providers.sort_by(|a, b| a.node.cmp(&b.node));
        for provider in providers.into_iter().take(PROVIDERS_ASKED) {
            let turn = Some(Instant::now() + PROVIDER_TIMEOUT);
            let encoded = match within(turn, self.fetch_from(provider, service)).await {
                Ok(Ok(encoded)) => encoded,
                Ok(Err(fault)) | Err(fault) => {
                    last = fault;
                    continue;
                }
            };
            let Some(verdict) = self.generic.judge(digest, encoded) else {
                let node = &provider.node;
                last = Fault::new(
                    Reason::ProviderGarbled,
                    format!("node {node} sent descriptors of {service} that are not those published"),
                );
                continue;
            };
            self.registry.schemas().insert(digest, verdict.clone());
            return verdict.map_err(|why| {
                tracing::warn!(service, provider = %provider.node, error = %why, "unusable descriptors");
                unusable(service, &why)
            });
        }
        Err(last)
    }

    async fn fetch_from(&self, provider: &Provider, service: &str) -> Result<Bytes, Fault> {
        let connection = self
            .pool
            .get(&provider.node, provider.address)
            .await
            .map_err(|error| Fault::new(Reason::ProviderUnreachable, error.to_string()))?;
        let mut request = tonic::Request::new(GetDescriptorsRequest { service: service.to_owned() });
        request.metadata_mut().insert("p2p-hop", tonic::metadata::MetadataValue::from_static("1"));
        let answer = RegistryServiceClient::with_origin(connection, origin(provider))
            .max_decoding_message_size(MAX_DESCRIPTOR_BYTES)
            .get_descriptors(request)
            .await?;
        Ok(answer.into_inner().file_descriptor_set)
    }
}

fn unusable(service: &str, why: &str) -> Fault {
    Fault::new(Reason::ProviderGarbled, format!("the descriptors of {service} cannot be used: {why}"))
}

fn origin(provider: &Provider) -> http::Uri {
    http::Uri::builder()
        .scheme("https")
        .authority(provider.address.to_string())
        .path_and_query("/")
        .build()
        .unwrap_or_default()
}
