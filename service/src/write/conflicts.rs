//! What users ask about conflicts, and decide.

use deadpool_postgres::Client;
use kairos_sync_protocol::conflict::{Choice, Conflict, ConflictCount, ConflictPreference, Resolve, Resolved};
use kairos_sync_rules::WritePolicy;
use tokio_postgres::Error;
use uuid::Uuid;

use super::{
    ConflictError, ConflictFilter, UploadError, Writer, conflict_log, preferences,
    resolution::{Decided, Resolution},
    result, upload,
};
use crate::auth::Principal;

impl Writer {
    /// A person's decision about one of their conflicts. To decide the same once more changes nothing.
    ///
    /// # Errors
    /// [`ConflictError`]; the conflict is as it was.
    pub async fn resolve(&self, principal: &Principal, id: &str, wanted: Resolve) -> Result<Resolved, ConflictError> {
        if wanted.data.is_some() != (wanted.choice == Choice::Merged) {
            return Err(ConflictError::Data);
        }
        let id = Uuid::parse_str(id).map_err(|_| ConflictError::Unknown)?;
        let resolution = Resolution { upload: upload(principal, None, &[]), id, wanted: &wanted };
        let Decided { conflict, written, is_repeated } = self.write_in_time(&resolution).await??;
        if !is_repeated {
            self.count_decided(&conflict);
        }
        let write_checkpoint = match written {
            Some(_) => self.checkpoints.create(&principal.user_id, conflict.client_id.as_deref()).await,
            None => None,
        };
        Ok(Resolved { conflict, result: written.map(|(entry, answer)| result(entry, answer)), write_checkpoint })
    }

    /// Some of a user's conflicts, newest first.
    ///
    /// # Errors
    /// [`UploadError`] where Postgres cannot be asked.
    pub async fn conflicts(&self, user_id: &str, filter: &ConflictFilter) -> Result<Vec<Conflict>, UploadError> {
        self.ask(async |client| conflict_log::list(client, user_id, filter).await).await
    }

    /// How many conflicts a user has, by kind.
    ///
    /// # Errors
    /// [`UploadError`] where Postgres cannot be asked.
    pub async fn conflict_counts(&self, user_id: &str) -> Result<Vec<ConflictCount>, UploadError> {
        self.ask(async |client| conflict_log::count(client, user_id).await).await
    }

    /// How a user wants conflicts to end.
    ///
    /// # Errors
    /// [`UploadError`] where Postgres cannot be asked.
    pub async fn preferences(&self, user_id: &str) -> Result<Vec<ConflictPreference>, UploadError> {
        self.ask(async |client| preferences::list(client, user_id).await).await
    }

    /// Remembers or forgets how a user wants conflicts of a table to end.
    ///
    /// # Errors
    /// Where the table does not leave conflicts to people, or Postgres cannot be asked.
    pub async fn prefer(&self, user_id: &str, preference: &ConflictPreference) -> Result<(), ConflictError> {
        let asks_user = self.plan.borrow().write_policy(&preference.table).is_some_and(WritePolicy::asks_user);
        if !asks_user && preference.strategy.is_some() {
            return Err(ConflictError::NotManual);
        }
        Ok(self.ask(async |client| preferences::write(client, user_id, preference).await).await?)
    }

    /// Asks about what is kept.
    async fn ask<T>(&self, question: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Result<T, UploadError> {
        let answer = async {
            let client = self.pool.get().await.map_err(UploadError::Connect)?;
            question(&client).await.map_err(|source| UploadError::Ledger(source.into()))
        };
        let deadline = self.options.deadline;
        tokio::time::timeout(deadline, answer).await.unwrap_or(Err(UploadError::Deadline(deadline)))
    }

    fn count_decided(&self, conflict: &Conflict) {
        let plan = self.plan.borrow();
        if let (Some(choice), Some(policy)) = (conflict.resolution, plan.write_policy(&conflict.table)) {
            let labels = [policy.table(), policy.conflict().name(), conflict_log::choice_name(choice)];
            self.metrics.conflicts.with_label_values(&labels).inc();
        }
    }
}
