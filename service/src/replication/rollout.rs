//! From one deployment of rules to the next, as the stream's thread does it between its other work: stored rows are
//! taken through what is new, a page to a commit; when nothing is left, one commit switches what clients are served by;
//! and what nobody is served any more is forgotten in slices.

use std::{
    collections::HashSet,
    thread,
    time::{Duration, Instant},
};

use tracing::field;

use super::{
    apply::Applier,
    error::ReplicationError,
    page::{Page, PageSize},
    rebuild::Rebuild,
    replicator::Replicator,
    state::ReplicationState,
    work::{PART, Work},
};
use crate::{
    deployment::RulesState,
    fault_point::fault_point,
    storage::RowKey,
    traces::{number, trace_span},
};

/// Stored rows taken at once: enough for most buckets to get a chunk of their own, and for rows to go past the store's
/// tail, little enough for the stream to get its turn several times a second.
const PAGE: PageSize = PageSize { rows: 10_000, bytes: 2 * 1024 * 1024, part: PART };
/// Names forgotten in one slice.
const SLICE_NAMES: u32 = 1_000;
/// Clients that are downloading what is retired have so long to learn that it is.
const RETIRED_KEPT: Duration = Duration::from_secs(10);

/// The worker's side of deployments.
pub(super) struct Rollout {
    rules: RulesState,
    /// From when on what is retired may be forgotten.
    forgets_from: Instant,
    /// What is to be evaluated next, if it was read already.
    ahead: Option<Page>,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stepped {
    /// There may be more to do.
    On,
    /// Clients are served by other rules now: replication begins anew with these.
    Switched,
}

impl Rollout {
    pub(super) fn new(rules: RulesState) -> Self {
        Self { rules, forgets_from: Instant::now() + RETIRED_KEPT, ahead: None }
    }

    /// Whether there is something to do now.
    pub(super) fn has_work(&self, state: &ReplicationState) -> bool {
        has_pages(state) || self.may_switch(state) || (self.has_retired() && Instant::now() >= self.forgets_from)
    }

    /// When there will be something to do although nothing else happens.
    pub(super) fn due(&self) -> Option<Instant> {
        self.has_retired().then_some(self.forgets_from)
    }

    /// Everything that is new is there, and as fresh as what is served. Readers of copies, which evaluate by themselves,
    /// have come to rest.
    fn may_switch(&self, state: &ReplicationState) -> bool {
        self.rules.building().is_some() && !has_pages(state) && state.is_copied() && state.is_equal()
    }

    fn has_retired(&self) -> bool {
        !self.rules.retired().is_empty()
    }

    /// Does a piece of the work.
    pub(super) fn step(&mut self, work: &mut Work<'_, '_>) -> Result<Stepped, ReplicationError> {
        if has_pages(work.state) {
            return evaluate_page(work, &mut self.ahead).map(|()| Stepped::On);
        }
        if self.may_switch(work.state) {
            return self.switch(work).map(|()| Stepped::Switched);
        }
        self.forget(work.replicator, work.state)?;
        Ok(Stepped::On)
    }

    fn switch(&mut self, work: &mut Work<'_, '_>) -> Result<(), ReplicationError> {
        let _span = trace_span!("rules.switch").entered();
        self.rules.switch();
        work.state.awaits_switch = false;
        let rebuild = work.state.rebuild.take();
        fault_point("rules.before-switch");
        work.replicator.save_rules(work.state, &self.rules)?;
        fault_point("rules.after-switch");
        work.replicator.progress.rebuilds(None);
        let rows_done = rebuild.map_or(0, |rebuild| rebuild.rows_done);
        let deployment = self.rules.serving().number.0;
        tracing::info!(deployment, rows_done, "rules: the new ones are built, and clients are served by them");
        Ok(())
    }

    fn forget(&mut self, replicator: &Replicator, state: &ReplicationState) -> Result<(), ReplicationError> {
        if !replicator.store.forget(self.rules.retired(), SLICE_NAMES)? {
            self.rules.forgotten();
            replicator.save_rules(state, &self.rules)?;
            tracing::info!("rules: what was retired is forgotten");
        }
        Ok(())
    }
}

/// Whether stored rows are left to be evaluated.
fn has_pages(state: &ReplicationState) -> bool {
    state.rebuild.as_ref().is_some_and(|rebuild| rebuild.next().is_some())
}

/// Takes a page of stored rows through the rules. While it is applied and committed, the next one is read.
fn evaluate_page(work: &mut Work<'_, '_>, ahead: &mut Option<Page>) -> Result<(), ReplicationError> {
    let Some(start) = work.state.rebuild.as_ref().and_then(Rebuild::next) else { return Ok(()) };
    let span = trace_span!("rules.page", rows = field::Empty).entered();
    let replicator = work.replicator;
    let layouts = work.relations.by_id(start.table).map_or_else(Vec::new, |table| table.layouts().to_vec());
    let read = |start| Page::read(replicator.store.as_ref(), &layouts, start, PAGE);
    let (page, touched) = Page::at(start, ahead.take(), &replicator.touched, read)?;
    let next = page.next();
    if let Some(next) = &next {
        replicator.touched.begin(next.clone());
    }
    *ahead = thread::scope(|scope| {
        let reading = next.map(|next| scope.spawn(|| read(next)));
        let row_count = apply_page(work, page, &touched)?;
        span.record("rows", number(row_count));
        let read = reading.map(|reading| reading.join().map_err(|_| ReplicationError::Worker));
        Ok::<_, ReplicationError>(read.transpose()?.transpose()?)
    })?;
    fault_point("rules.after-page");
    Ok(())
}

fn apply_page(work: &mut Work<'_, '_>, page: Page, touched: &HashSet<RowKey>) -> Result<u64, ReplicationError> {
    let Work { replicator, relations, state } = work;
    let store = replicator.store.as_ref();
    let mut applier = Applier::with_capacity(store, page.len());
    let table = relations.by_id(page.start.table);
    let (row_count, last) = page.apply(store, &mut applier, table, touched, PART)?;
    if let Some(rebuild) = &mut state.rebuild {
        rebuild.advance(row_count, last.as_ref());
        replicator.progress.rebuilds(Some(rebuild.status()));
        replicator.metrics.rows_rebuilt.inc_by(row_count);
    }
    fault_point("rules.before-page");
    work.store(applier)?;
    Ok(row_count)
}
