//! Who asks, from where, and whether that was too often.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};

use super::{ApiError, ApiState, client_address::ClientAddress};
use crate::{
    auth::Principal,
    rate_limit::{Activity, Party},
};

/// Somebody whose token was accepted.
#[derive(Clone)]
pub(super) struct Caller {
    state: ApiState,
    pub(super) principal: Arc<Principal>,
    address: IpAddr,
}

impl FromRequestParts<ApiState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let address = ClientAddress::from_request_parts(parts, state).await?;
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        Self::authenticate(state, header, address).await
    }
}

impl Caller {
    /// Who shows this `Token …` or `Bearer …`.
    ///
    /// # Errors
    /// With the code of the reason; all else about it is in the log only.
    pub(super) async fn authenticate(
        state: &ApiState,
        header: Option<&str>,
        ClientAddress(address): ClientAddress,
    ) -> Result<Self, ApiError> {
        state.may_try_tokens(address)?;
        let result = state.parts.authenticator.authenticate(header).await;
        let principal = result.map_err(|error| {
            tracing::info!(code = error.code(), %error, "request refused");
            // Where nothing was found out about a token, nobody is to blame.
            if !error.is_unknown() {
                state.token_refused(address);
            }
            ApiError::from(error)
        })?;
        Ok(Self { state: state.clone(), principal: Arc::new(principal), address })
    }

    /// Counts what is known of a request before its body is read.
    ///
    /// # Errors
    /// When the user, or whoever comes from there, must wait.
    pub(super) fn begins(&self, activity: Activity) -> Result<(), ApiError> {
        self.state.take(Party::Address(self.address), activity, 1)?;
        self.state.take(Party::User(&self.principal.user_id), activity, 1)
    }

    /// Counts the device, which the body may have named. Without a name it is not told apart from the user.
    ///
    /// # Errors
    /// When the device must wait.
    pub(super) fn device_begins(&self, client_id: Option<&str>, activity: Activity) -> Result<(), ApiError> {
        self.device_takes(client_id, activity, 1)
    }

    /// Counts the writes of an upload. They may be more than are left: then the next ones wait.
    ///
    /// # Errors
    /// When the device, the user, or whoever comes from there, must wait.
    pub(super) fn writes(&self, client_id: Option<&str>, count: usize) -> Result<(), ApiError> {
        self.state.take(Party::Address(self.address), Activity::Operation, count)?;
        self.state.take(Party::User(&self.principal.user_id), Activity::Operation, count)?;
        self.device_takes(client_id, Activity::Operation, count)
    }

    fn device_takes(&self, client_id: Option<&str>, activity: Activity, count: usize) -> Result<(), ApiError> {
        let user_id = &self.principal.user_id;
        client_id.map_or(Ok(()), |client_id| self.state.take(Party::Device(user_id, client_id), activity, count))
    }
}

impl ApiState {
    /// Whether tokens from an address are looked at: not while too many were refused.
    pub(super) fn may_try_tokens(&self, address: IpAddr) -> Result<(), ApiError> {
        self.take(Party::Address(address), Activity::RefusedToken, 0)
    }

    /// One more was refused.
    pub(super) fn token_refused(&self, address: IpAddr) {
        // It is refused already.
        let _ = self.rates.take(Party::Address(address), Activity::RefusedToken, 1);
    }

    fn take(&self, party: Party<'_>, activity: Activity, count: usize) -> Result<(), ApiError> {
        self.rates.take(party, activity, count).map_err(|limited| {
            self.parts.metrics.rate_limited.with_label_values(&[limited.party, limited.activity.name()]).inc();
            limited.into()
        })
    }
}
