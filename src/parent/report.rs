//! Telling a parent that is a node how this one stands.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use reqwest::Method;

use super::authority::Want;
use super::error::Error;
use super::exchange::Exchange;
use super::gate::{Class, Load, Patience};
use super::outgoing::Outgoing;
use super::{Hops, Parent, wire};

impl Parent {
    /// Sends it a report, JSON; `false`: it takes none.
    ///
    /// # Errors
    ///
    /// Any [`Error`] of a question.
    pub async fn report(&self, report: Bytes) -> Result<bool, Error> {
        let shared = &*self.shared;
        let patience = Patience {
            span: shared.connect_timeout,
            is_spare: false,
        };
        let pass = shared
            .gate
            .pass(Class::Synchronisation, Load::Question, None, patience)
            .await?;
        let mut url = shared.url.clone();
        url.set_path(&format!("{}v2/_wharf/report", url.path()));
        let mut headers = HeaderMap::new();
        headers.insert(header::VIA, shared.via(&Hops::default()));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, report.len().into());
        let body = Outgoing::Bytes(report);
        let exchange = Exchange::new(
            shared,
            Method::POST,
            url,
            headers,
            Load::Question,
            Want::catalog(),
            body,
        );
        let limit = shared.connect_timeout * 3;
        let sending = tokio::time::timeout(limit, exchange.run());
        // Boxed, like all that is deep.
        let sent = pass.while_open(Box::pin(sending)).await?;
        let reply = sent.map_err(|_| shared.timed_out(limit))??;
        let status = reply.response.status().as_u16();
        match status {
            200..300 => {
                wire::drain(reply.response).await;
                Ok(true)
            }
            // An older node, or an account that may not see what is there.
            400..500 if status != 429 => {
                wire::drain(reply.response).await;
                Ok(false)
            }
            _ => Err(shared.refusal(reply.response, reply.is_elsewhere).await),
        }
    }
}
